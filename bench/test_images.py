"""One image and one kernel: every peer that filters images on every case of images.txt."""

from bench import cases
from bench.measure import settings_of
from bench.peers import IMAGE_PEERS


def table():
    return [(problem, settings_of(IMAGE_PEERS)) for problem in cases.load("images")]


def test_image(problem, contender, check_then_time):
    check_then_time(problem, contender)
