"""The command ``fastconv``; it needs the extra packages of ``pip install 'fastconv[cli]'``."""
