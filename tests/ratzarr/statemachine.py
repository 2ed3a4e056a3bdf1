"""Several instances of one table, in any order of work, against a table in plain numpy.

Each instance is a view: what others have changed since it last looked, it sees, or it says what
happened (docs/reliability.md, docs/design.md). The model (:mod:`tests.ratzarr.model`) has the
truth; a view (:mod:`tests.ratzarr.histories.views`) keeps what one instance may still believe. An
outcome that neither the truth nor such a belief explains is a failure, and so is a store that a
fresh instance, zarr-python (:mod:`tests.ratzarr.looking`) or the check of a whole store find to be
otherwise than the model.

    run(place, examples=5000, seed=1)      # another 5000 histories
"""

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from ratzarr.maintenance.check import check_store
from tests.ratzarr.histories.bulk import Bulk
from tests.ratzarr.histories.columns import Columns
from tests.ratzarr.histories.instances import Instances
from tests.ratzarr.histories.metadata import Metadata
from tests.ratzarr.histories.reading import Reading
from tests.ratzarr.histories.truth import Truth
from tests.ratzarr.histories.writing import Writing


class Histories(
    Instances, Columns, Writing, Reading, Bulk, Metadata, Truth, RuleBasedStateMachine
):
    """Whatever several instances do."""

    def check_invariants(self, *args, **kwargs):
        super().check_invariants(*args, **kwargs)
        if hasattr(self, "url") and hasattr(self, "views"):
            self.step += 1
            if self.step % self.every == 0:
                self.look()

    def teardown(self):
        if not hasattr(self, "views"):
            return
        for view in self.views:
            self._close(view)
        self.look()
        self.look_by_zarr()
        unfinished = {column.name for column in self._unfinished() if not column.complete}
        for finding in check_store(self.url):
            known = finding.kind == "unfinished" and finding.column in unfinished
            # Rows of a column that is gone, which S3 can't keep out.
            known |= self.strays and finding.kind in ("stale", "leftover", "missing")
            assert known, f"the check says: {finding.kind}: {finding}"


def run(place, examples, seed=None, *, steps=30, every=1):
    """Run histories; an AssertionError tells the first that went wrong, as short as it can be.

    Parameters
    ----------
    place
        Where the tables lie (:mod:`tests.places`).
    examples : int
        How many histories.
    seed : int, optional
        Which ones; by default always the same.
    steps : int
        The most that is done in one.
    every : int
        Steps between two looks at everything.
    """

    class There(Histories):
        pass

    There.place, There.every = place, every
    if seed is not None:
        There = hypothesis.seed(seed)(There)
    run_state_machine_as_test(
        There,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=seed is None,
            database=None,
            deadline=None,
            print_blob=False,
            # The time goes into disks and servers, not into finding examples; and what was found
            # is told step by step, so there is nothing to explain.
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
