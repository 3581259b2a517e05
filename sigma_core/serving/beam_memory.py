"""What step 1 found for every user of a day's lists, kept so that a changed catalog reruns steps 2 and 3 alone.

Prefixes, their probabilities, the query vectors h_k, the weights of the priors and the pointer's shares, in one file that may
be deleted at any time. A user's are used again only for the same model, generation code (`GENERATION_VERSION`), requests and
history over unchanged items: everything step 1 reads of a user is in the user's key. What it reads of the catalog as a whole (how much is bought under each prefix, and
which prefixes hold anything) may move by `MAX_PRIOR_SHIFT`; beyond that, or when a prefix opens, everybody is searched anew.
Source: paper, three-step generation and nearline serving; keeping step 1 is our choice.

Shape legend: U users, T requests a user, R = U*T, K prefixes, P prefix length, E item width, S statistics, C first codes,
Q prefixes of the catalog, X shares that are not 0.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from sigma_core import versions
from sigma_core.artifacts import digest_bytes, digest_json, sync

if TYPE_CHECKING:
    from sigma_core.generation.recommender import Recommender, Searched
    from sigma_core.instruction.collate import Request, UserContext

MAX_PRIOR_SHIFT: Final = 0.05  # in logs of counts: a twentieth more or less is bought under a prefix
KEEP_FILES: Final = 3
_SCHEMA: Final = 4
_BY_REQUEST: Final = ("prefix", "log_prob", "query", "activity", "generated")


class BeamMemory:
    """Step 1 of a list of users, remembered where it can be; `of` answers, `remember` adds, `save` keeps.

    Attributes:
        searched: users whose step 1 was computed in this process.
        remembered: users whose step 1 was read.
    """

    def __init__(
        self,
        path: Path | None,
        recommender: "Recommender",
        item_ids: Sequence[str],
        users: Sequence["UserContext"],
        requests: Sequence["Request"],
        model: str,
    ) -> None:
        """Open the memory of these requests of these users, asked of a model that the digest of its weights names."""
        self.path, self._num_tasks = path, len(requests)
        self._recommender, self._item_ids = recommender, list(item_ids)
        self._binding = digest_json(
            [
                _SCHEMA,
                versions.GENERATION_VERSION,
                model,
                [[one.instruction, one.focus] for one in requests],
                recommender.config.num_prefixes,
                recommender.config.sigma_top,  # with K it is how many beams there are
                recommender.collator.prompt_favorites,
            ]
        )
        item_keys = self._keys_of_items()
        self._user_keys = [_key(user, item_keys) for user in users]
        self.searched = self.remembered = 0
        self._new: list[dict[str, np.ndarray]] = []
        self._new_keys: list[bytes] = []
        self._kept = self._load()
        self._place = {key.tobytes(): at for at, key in enumerate(self._kept["keys"])} if self._kept else {}
        self._used: list[int] = []
        self._row_of = self._rows_today()

    # ------------------------------------------------------------------------------------- reading
    def split(self) -> tuple[list[int], list[int]]:
        """Places of the users whose step 1 is known, and of the others."""
        known = [at for at, key in enumerate(self._user_keys) if key in self._place]
        return known, [at for at, key in enumerate(self._user_keys) if key not in self._place]

    def of(self, places: Sequence[int]) -> "Searched":
        """Step 1 of known users, over the item table of today."""
        import torch

        from sigma_core.generation.prefix_beam import Beams
        from sigma_core.generation.recommender import Searched

        assert self._kept is not None
        users = [self._place[self._user_keys[at]] for at in places]
        self._used += users
        self.remembered += len(users)
        rows = np.concatenate([np.arange(u * self._num_tasks, (u + 1) * self._num_tasks) for u in users])
        device = self._recommender.device
        part = {name: torch.as_tensor(self._kept[name][rows], device=device) for name in _BY_REQUEST}
        share, row = self._shares(rows, part["log_prob"].shape[1])
        beams = Beams(
            part["prefix"].long(),
            part["log_prob"],
            part["query"],
            torch.zeros_like(part["log_prob"]),  # lists made ahead know no words
            torch.zeros_like(part["log_prob"]),
            part["activity"],
            torch.as_tensor(share, device=device),
            torch.as_tensor(row, device=device),
            part["generated"],
        )
        return Searched(beams, None, torch.zeros(len(rows), dtype=torch.long, device=device))

    def _shares(self, requests: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The pointer's shares (R, K, J) and item rows (R, J): a column an item that is pointed at."""
        kept = self._kept
        assert kept is not None
        begin, end = kept["share_offset"][requests], kept["share_offset"][requests + 1]
        wide = max(int((end - begin).max(initial=0)), 1)
        share = np.zeros((len(requests), width, wide), dtype=np.float32)
        row = np.zeros((len(requests), wide), dtype=np.int64)
        for at, (first, last) in enumerate(zip(begin, end, strict=True)):
            column = np.arange(last - first)
            share[at, kept["share_beam"][first:last], column] = kept["share"][first:last]
            row[at, column] = self._row_of[kept["share_item"][first:last]]
        return share, row

    # ------------------------------------------------------------------------------------- writing
    def remember(self, places: Sequence[int], found: "Searched") -> None:
        """Add the step 1 of users, computed now."""
        beams = found.beams
        self.searched += len(places)
        self._new_keys += [self._user_keys[at] for at in places]
        request, beam, slot = (part.cpu().numpy() for part in beams.share_RKJ.nonzero(as_tuple=True))
        order = np.argsort(request, kind="stable")
        request, beam, slot = request[order], beam[order], slot[order]
        shares = beams.share_RKJ.cpu().numpy()
        self._new.append(
            {
                "prefix": beams.prefix_RKP.cpu().numpy().astype(np.int32),
                "log_prob": beams.log_prob_RK.cpu().numpy(),
                "query": beams.query_RKE.cpu().numpy(),
                "activity": beams.activity_RKS.cpu().numpy(),
                "generated": beams.generated_RK.cpu().numpy(),
                "share_count": np.bincount(request, minlength=len(shares)),
                "share_beam": beam.astype(np.int32),
                "share_item": beams.row_RJ.cpu().numpy()[request, slot].astype(np.int32),
                "share": shares[request, beam, slot],
            }
        )

    def save(self) -> None:
        """Keep what was used and what was added in place of the former file; of the folder's files the newest few stay."""
        if self.path is None or not self._new:
            return
        from safetensors.numpy import save_file

        tensors = self._joined()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tmp = self.path.with_name(f".{self.path.name}.tmp")
        try:
            save_file(tensors, tmp, metadata={"binding": self._binding})
            sync(tmp)  # beams of zeros after a power cut would be taken for known ones
            tmp.replace(self.path)
        finally:
            tmp.unlink(missing_ok=True)
        others = sorted(self.path.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for old in others[:-KEEP_FILES]:
            old.unlink(missing_ok=True)

    def _joined(self) -> dict[str, np.ndarray]:
        parts, keys = list(self._new), list(self._new_keys)
        prior, opened = self._prior(), self._opened()
        if self._kept is not None and self._used:
            parts.insert(0, self._kept_part(self._used))
            keys = [self._kept["keys"][user].tobytes() for user in self._used] + keys
            prior, opened = self._kept["prior"], self._kept["opened"]  # what most were searched under
        out = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        counts = out.pop("share_count")
        ids = json.dumps(self._item_ids).encode()
        return out | {
            "share_offset": np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            "keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16),
            "item_ids": np.frombuffer(ids, dtype=np.uint8),
            "prior": prior,
            "opened": opened,
        }

    def _kept_part(self, users: Sequence[int]) -> dict[str, np.ndarray]:
        assert self._kept is not None
        kept, num = self._kept, self._num_tasks
        rows = np.concatenate([np.arange(u * num, (u + 1) * num) for u in users])
        begin, end = kept["share_offset"][rows], kept["share_offset"][rows + 1]
        flat = np.concatenate([np.arange(a, b) for a, b in zip(begin, end, strict=True)]).astype(np.int64)
        part = {name: kept[name][rows] for name in _BY_REQUEST}
        return part | {
            "share_count": end - begin,
            "share_beam": kept["share_beam"][flat],
            "share_item": self._row_of[kept["share_item"][flat]].astype(np.int32),
            "share": kept["share"][flat],
        }

    # ---------------------------------------------------------------------------------- what binds
    def _load(self) -> dict[str, np.ndarray] | None:
        """The file's content when it is of this model, these requests and about this catalog; else None."""
        from safetensors import SafetensorError, safe_open

        if self.path is None:
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                if (file.metadata() or {}).get("binding") != self._binding:
                    return None
                kept: dict[str, np.ndarray] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
        now = {tuple(row) for row in self._opened().tolist()}
        if now - {tuple(row) for row in kept["opened"].tolist()}:
            return None
        if np.abs(kept["prior"] - self._prior()).max(initial=0.0) > MAX_PRIOR_SHIFT:
            return None
        return kept

    def _prior(self) -> np.ndarray:
        prior: np.ndarray = self._recommender.items.activity.prefix_UKS[0].cpu().numpy()
        return prior

    def _opened(self) -> np.ndarray:
        rows: np.ndarray = self._recommender.ranges.rows_QP.cpu().numpy()
        return rows

    def _keys_of_items(self) -> list[bytes]:
        items = self._recommender.items
        tables: tuple[np.ndarray, ...] = (
            items.tensors.vectors_NE.cpu().numpy(),
            items.tensors.prefixes_NP.cpu().numpy(),
            items.activity.item_UNS[0].cpu().numpy(),
        )
        return [
            digest_bytes(item.encode(), *(table[row].tobytes() for table in tables)).encode()
            for row, item in enumerate(self._item_ids)
        ]

    def _rows_today(self) -> np.ndarray:
        """Row of today's item table of each item of the file; 0 for an item that left (nobody known points at one)."""
        if self._kept is None:
            return np.zeros(0, dtype=np.int64)
        today = {item: row for row, item in enumerate(self._item_ids)}
        former: list[str] = json.loads(self._kept["item_ids"].tobytes())
        return np.array([today.get(item, 0) for item in former], dtype=np.int64)


def _key(user: "UserContext", item_keys: Sequence[bytes]) -> bytes:
    """Names everything that step 1 reads of a user: profile, and the items of the history as the index has them."""
    parts: list[bytes] = [user.profile_text.encode()]
    for rows, stats in (
        (user.recent_rows, user.recent_stats),
        (user.favorite_rows, user.favorite_stats),
    ):
        parts += [stats.tobytes(), b"".join(item_keys[row] for row in rows)]
    return bytes.fromhex(digest_bytes(*parts))
