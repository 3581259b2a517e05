"""What a refit changed: codes renumbered to agree with the previous month's, and how many items moved all the same.

Two refits live in two spaces (each has its own encoder), so clusters are matched by the items they share, never by distance. A
renumbering changes names, not clusters: encoding and reconstruction stay what they were. Our choice; the paper is silent on refits.

Shape legend: N items of both refits, L levels, K codes per level.
"""

from typing import Any

import numpy as np

from sigma_core.tokenization.codebooks import Codebooks


def common_codes(previous: Codebooks, fitted: Codebooks) -> tuple[np.ndarray, np.ndarray]:
    """Codes [N, L] of the items that both refits hold, in the order of their ids."""
    row_of = {item: row for row, item in enumerate(previous.item_ids)}
    pairs = [(row_of[item], row) for row, item in enumerate(fitted.item_ids) if item in row_of]
    where = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return previous.codes[where[:, 0]], fitted.codes[where[:, 1]]


def is_comparable(previous: Codebooks, fitted: Codebooks) -> bool:
    """Whether numbers can be carried over: as many levels, as many codes, some item in common."""
    return (
        previous.codebooks.shape[:2] == fitted.codebooks.shape[:2]
        and previous.prefix_length == fitted.prefix_length
        and len(set(previous.item_ids) & set(fitted.item_ids)) > 0
    )


def keep_numbering(previous: Codebooks, fitted: Codebooks) -> Codebooks:
    """`fitted` with its codes renumbered, level by level, so that as many common items as possible keep their number.

    The best one-to-one assignment (Hungarian), exact; numbers that no common item speaks for stay where they can. Matching a
    refit with itself changes nothing.

    Raises:
        ValueError: the two are not comparable (`is_comparable`).
    """
    if not is_comparable(previous, fitted):
        raise ValueError(
            f"codebooks {previous.codebooks.shape[:2]} and {fitted.codebooks.shape[:2]} with "
            f"{len(set(previous.item_ids) & set(fitted.item_ids))} common items arrived; numbers carry over between refits of "
            "one shape and prefix length that share items. Set tokenization.keep_numbering=false for a fresh start."
        )
    old, new = common_codes(previous, fitted)
    codebooks, codes = fitted.codebooks.copy(), fitted.codes.copy()
    for level in range(fitted.num_levels):
        number_K = _assignment(new[:, level], old[:, level], fitted.codebook_size)
        codebooks[level, number_K] = fitted.codebooks[level]
        codes[:, level] = number_K[fitted.codes[:, level]]
    return Codebooks(
        codebooks,
        fitted.item_ids,
        codes,
        prefix_length=fitted.prefix_length,
        beam=fitted.beam,
        encoder_digest=fitted.encoder_digest,
        health=fitted.health,
    )


def refit_drift(previous: Codebooks, fitted: Codebooks) -> dict[str, Any]:
    """How far `fitted` is from `previous`; JSON values only.

    common_items, new_items, gone_items; prefix_changed_share: common items whose prefix is another one; code_changed_share: the
    same by level. Call it before and after `keep_numbering` to see what renumbering saved.
    """
    old, new = common_codes(previous, fitted)
    length, most = fitted.prefix_length, max(len(old), 1)
    moved = (old[:, :length] != new[:, :length]).any(axis=1)
    return {
        "common_items": len(old),
        "new_items": len(fitted.item_ids) - len(old),
        "gone_items": len(previous.item_ids) - len(old),
        "prefix_changed_share": round(float(moved.sum() / most), 4),
        "code_changed_share": [round(float(share), 4) for share in (old != new).sum(axis=0) / most],
    }


def _assignment(new_N: np.ndarray, old_N: np.ndarray, num_codes: int) -> np.ndarray:
    """The number [K] that each new code gets: a permutation with the most items on the diagonal."""
    from scipy.optimize import linear_sum_assignment

    together = np.zeros((num_codes, num_codes))
    np.add.at(together, (new_N, old_N), 1.0)
    together[np.diag_indices(num_codes)] += 0.5 / num_codes  # nobody speaks for it: keep the number
    rows, columns = linear_sum_assignment(together, maximize=True)
    number = np.empty(num_codes, dtype=np.int64)
    number[rows] = columns
    return number
