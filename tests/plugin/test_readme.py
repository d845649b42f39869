"""The README lists the algorithms as they are."""

from scripts.algorithm_reference import README, describe_provider, updated


def test_the_readme_is_up_to_date(provider):
    text = README.read_text(encoding="utf-8")
    assert updated(text, describe_provider(provider)) == text, "run scripts/document_algorithms"


def test_every_algorithm_and_parameter_is_described(provider):
    reference = describe_provider(provider)
    for algorithm in provider.algorithms():
        if algorithm.groupId() != "Examples":
            assert algorithm.id() in reference
            for parameter in algorithm.parameterDefinitions():
                assert parameter.help(), f"{algorithm.id()} {parameter.name()}"
