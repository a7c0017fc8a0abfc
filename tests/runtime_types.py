"""The run-time type checker of the tests: beartype, reading `float` as PEP 484 does, so that an int will do."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
