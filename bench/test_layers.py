"""Layers of networks: fastconv in both layouts, called and planned, and torch in both of its own."""

from bench import cases
from bench.measure import settings_of
from bench.peers import LAYER_PEERS


def table():
    problems = dict.fromkeys(problem for network in cases.NETWORKS for problem in cases.load(network))
    return [(problem, settings_of(LAYER_PEERS)) for problem in problems]


def test_layer(problem, contender, check_then_time):
    check_then_time(problem, contender)
