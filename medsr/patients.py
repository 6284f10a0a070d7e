"""The training patients of a model as salted hashes, for the test of overlap with a cohort.

A model that is scored on its own training patients looks better than it is. So its spec carries a
hash of every training patient's identifier, and a cohort's identifiers can be tested against them
without the model naming anyone. What is refused is decided in ``medsr.data.overlap``, and who
counts as a training patient of a run in ``medsr.train.finish``. No torch is imported.

Identifiers are short and guessable (``sub-01``), so a fast hash would give them away in no time:
scrypt makes each guess cost tens of milliseconds and 16 MB, and the salt makes tables that were
computed in advance useless. That makes long lists of guesses expensive; it does not hide an
identifier from somebody who suspects just that one, and nothing could that still allows the test.

Source: Percival and Josefsson, "The scrypt Password-Based Key Derivation Function", RFC 7914.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from typing import Literal

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass

__all__ = ["HashedPatients", "TrainingPatients", "spelling"]

COST = 1 << 14
BLOCK = 8
HASH_BYTES = 16
SALT_BYTES = 16
_LARGEST_COST = 1 << 18
_MEMORY_BYTES = 512 << 20
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_PREFIXES = frozenset({"sub", "subj", "subject", "pat", "patient"})

_CONFIG = ConfigDict(extra="forbid")


def spelling(patient_id: str) -> str:
    """What is left of an identifier when case, separators, ``sub-`` and leading zeros do not count.

    Two different people of one cohort hardly share it, and one person in two cohorts often does.

    Args:
        patient_id: As a cohort writes it.

    Examples:
        >>> from medsr.patients import spelling
        >>> spelling("sub-01"), spelling("SUB01"), spelling(" 1 ")
        ('1', '1', '1')
        >>> spelling("LIDC-IDRI-0001"), spelling("lidc_idri 1")
        ('lidc.idri.1', 'lidc.idri.1')
        >>> spelling("1-11"), spelling("11-1")
        ('1.11', '11.1')
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", patient_id).casefold())
    tokens: list[str] = _TOKEN.findall(text)
    while len(tokens) > 1 and tokens[0] in _PREFIXES:
        tokens = tokens[1:]
    short = [token.lstrip("0") or "0" if token.isdigit() else token for token in tokens]
    return ".".join(short) or text.strip()


@dataclass(frozen=True, config=_CONFIG)
class HashedPatients:
    """Hashes of identifiers under one salt.

    Args:
        salt: Hex digits, random, one for each list.
        hashes: Hex digits of every patient's hash, sorted.
        algorithm: ``scrypt`` of the identifier's :func:`spelling`.
        cost: scrypt's N, a power of two.
        block: scrypt's r.
        parallel: scrypt's p.

    Examples:
        >>> from medsr.patients import HashedPatients
        >>> listed = HashedPatients.of(["sub-01", "sub-02"], cost=2)  # a low cost, for the example
        >>> sorted(listed.overlap(["SUB01", "sub-07"]))
        ['SUB01']
    """

    salt: str
    hashes: tuple[str, ...]
    algorithm: Literal["scrypt"] = "scrypt"
    cost: int = COST
    block: int = BLOCK
    parallel: int = 1

    @field_validator("salt")
    @classmethod
    def _salt_is_hex(cls, value: str) -> str:
        if not _HEX.fullmatch(value) or not 8 <= len(value) // 2 <= 64:
            raise ValueError("a salt is 8 to 64 bytes in hex digits")
        return value

    @field_validator("hashes")
    @classmethod
    def _hashes_are_hex(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_HEX.fullmatch(item) and len(item) == 2 * HASH_BYTES for item in value):
            raise ValueError(f"every hash has {2 * HASH_BYTES} hex digits")
        return value

    @field_validator("cost")
    @classmethod
    def _cost_is_bounded(cls, value: int) -> int:
        # A spec may come from anybody: no setting of it can fill a machine or stall it.
        if not 2 <= value <= _LARGEST_COST or value & (value - 1):
            raise ValueError(f"cost is a power of two up to {_LARGEST_COST}")
        return value

    @field_validator("block", "parallel")
    @classmethod
    def _small(cls, value: int) -> int:
        if not 1 <= value <= 8:
            raise ValueError("block and parallel are 1 to 8")
        return value

    @classmethod
    def of(cls, patient_ids: Iterable[str], *, cost: int = COST) -> HashedPatients:
        """Hash identifiers under a new random salt.

        Args:
            patient_ids: As the cohort names the patients; repetitions do not count.
            cost: scrypt's N; the default takes some 40 ms a patient.
        """
        empty = cls(secrets.token_hex(SALT_BYTES), (), cost=cost)
        hashes = empty._hash(sorted({spelling(name) for name in patient_ids}))
        return cls(empty.salt, tuple(sorted(hashes)), cost=cost)

    def overlap(self, patient_ids: Iterable[str]) -> frozenset[str]:
        """Return those of the identifiers that are in the list, as they were given."""
        if not self.hashes:
            return frozenset()
        by_spelling: dict[str, list[str]] = {}
        for name in patient_ids:
            by_spelling.setdefault(spelling(name), []).append(name)
        hashes, stated = self._hash([*by_spelling]), set(self.hashes)
        hit = [names for names, h in zip(by_spelling.values(), hashes, strict=True) if h in stated]
        return frozenset(name for names in hit for name in names)

    def _hash(self, spellings: Sequence[str]) -> list[str]:
        # hashlib lets go of the interpreter while it works.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(self._hash_one, spellings))

    def _hash_one(self, text: str) -> str:
        return hashlib.scrypt(
            text.encode(),
            salt=bytes.fromhex(self.salt),
            n=self.cost,
            r=self.block,
            p=self.parallel,
            maxmem=_MEMORY_BYTES,
            dklen=HASH_BYTES,
        ).hex()


@dataclass(frozen=True, config=_CONFIG)
class TrainingPatients:
    """All training patients of a model: its own, its teachers' and those of its initial weights.

    Hashes under several salts stand beside each other, since those of a teacher cannot be brought
    to another salt without the identifiers.

    Args:
        lists: Hashed identifiers, one list for each salt; none for a model that saw no patient.
        unstated: Names of teachers and initial models that do not state their training patients;
            where there are any, the lists are incomplete.

    Examples:
        >>> from medsr.patients import TrainingPatients
        >>> teacher = TrainingPatients.gather(["sub-01"], cost=2)
        >>> student = TrainingPatients.gather(["sub-02"], [("a teacher", teacher)], cost=2)
        >>> sorted(student.overlap(["sub-01", "sub-02", "sub-03"]))
        ['sub-01', 'sub-02']
        >>> student.is_complete
        True
    """

    lists: tuple[HashedPatients, ...] = ()
    unstated: tuple[str, ...] = field(default=())

    @classmethod
    def gather(
        cls,
        patient_ids: Iterable[str],
        learnt_from: Iterable[tuple[str, TrainingPatients | None]] = (),
        *,
        cost: int = COST,
    ) -> TrainingPatients:
        """Gather the training patients of a new model.

        Args:
            patient_ids: Its own training patients.
            learnt_from: Name and training patients of every teacher and initial model; None for
                one that does not state them.
            cost: scrypt's N for the patients that no such model has hashed yet.
        """
        lists: dict[tuple[str, tuple[str, ...]], HashedPatients] = {}
        unstated: set[str] = set()
        for name, told in learnt_from:
            if told is None:
                unstated.add(name)
                continue
            lists |= {(part.salt, part.hashes): part for part in told.lists}
            unstated |= set(told.unstated)
        left = set(patient_ids)
        for part in lists.values():
            left -= part.overlap(left)
        new = (HashedPatients.of(left, cost=cost),) if left else ()
        return cls((*lists.values(), *new), tuple(sorted(unstated)))

    @property
    def is_complete(self) -> bool:
        """Whether every teacher and initial model states its training patients."""
        return not self.unstated

    def overlap(self, patient_ids: Iterable[str]) -> frozenset[str]:
        """Return those of the identifiers that are training patients, as they were given.

        Args:
            patient_ids: As a cohort names them; each costs tens of milliseconds a list.
        """
        wanted = frozenset(patient_ids)
        return frozenset().union(*(part.overlap(wanted) for part in self.lists))
