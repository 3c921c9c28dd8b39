"""Jobs: independent work items, done by workers that each load what they need once.

The code of a job says what a worker loads and what it does with an item. It does not know what runs it: this process,
processes of this machine, or Ray's actors on a cluster. ::

    job = Job(begin=load_renderer, given=(order,))
    for done in run_job(job, items, Engine("ray", workers=64)):
        ...
"""

from astrape.jobs.batches import run_batches
from astrape.jobs.findings import Failed, Finding
from astrape.jobs.job import ENGINES, IN_PROCESS, Done, Engine, Job, JobError
from astrape.jobs.running import run_job

__all__ = ["ENGINES", "IN_PROCESS", "Done", "Engine", "Failed", "Finding", "Job", "JobError", "run_batches", "run_job"]
