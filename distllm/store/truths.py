"""What is true of every database between two transactions, as statements that find what is not.

They are asked on one snapshot, so that a coordinator may work meanwhile.
"""

from distllm.domain.states import PromptState

# Each finds a prompt or a job that breaks a promise; none finds anything in a sound database.
PROMISES = {
    "prompts are leased without a holder, or held without a lease": (
        "SELECT id FROM prompts WHERE (state = 'leased') <> (holder IS NOT NULL)"
    ),
    "prompts are done without a result, or have one without being done": (
        "SELECT p.id FROM prompts p LEFT JOIN results r ON r.prompt_id = p.id "
        "WHERE (p.state = 'done') <> (r.prompt_id IS NOT NULL)"
    ),
    "results were not given by their attempt": (
        "SELECT r.prompt_id FROM results r LEFT JOIN attempts a ON a.id = r.attempt_id "
        "WHERE r.reused_from IS NULL AND (a.prompt_id IS DISTINCT FROM r.prompt_id "
        "OR a.outcome IS DISTINCT FROM 'done')"
    ),
    "prompts put together what is not below them": (
        "SELECT c.id FROM prompts c JOIN prompts p ON p.id = c.parent_id WHERE c.level >= p.level"
    ),
    "results have both a source and an attempt, or neither": (
        "SELECT prompt_id FROM results WHERE (reused_from IS NULL) = (attempt_id IS NULL)"
    ),
}

WAITS_WRONGLY = """
SELECT p.id FROM prompts p
 WHERE p.waits_for <> (SELECT count(*) FROM prompts c WHERE c.parent_id = p.id AND c.state <> 'done') ORDER BY p.id
"""

JOBS_THAT_END_WRONGLY = """
SELECT j.id FROM jobs j
 WHERE (j.finished_at IS NULL) <> (j.submitted_at IS NULL OR EXISTS
       (SELECT 1 FROM prompts p WHERE p.job_id = j.id AND p.state IN ('pending', 'leased')))
 ORDER BY j.id
"""

# What a job is asked to cost; an answer taken from an earlier job has cost this one nothing.
_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
COUNTS = (*(state.value for state in PromptState), *_TOKENS, "truncated", "unproven", "reused")
_FROM_ROWS = ", ".join(
    [f"count(*) FILTER (WHERE p.state = '{state}')" for state in PromptState]
    + [f"coalesce(sum(r.{name}) FILTER (WHERE r.reused_from IS NULL), 0)" for name in _TOKENS]
    + [
        "count(*) FILTER (WHERE r.finish_reason = 'length')",
        "count(*) FILTER (WHERE r.proof = 'unproven')",
        "count(r.reused_from)",
    ]
)

COUNTED = f"SELECT job_id, part, {', '.join(f'sum({name})' for name in COUNTS)} FROM job_counters GROUP BY job_id, part"
COUNTED_FROM_ROWS = f"""
SELECT p.job_id, p.parent_id IS NOT NULL AS part, {_FROM_ROWS}
  FROM prompts p LEFT JOIN results r ON r.prompt_id = p.id GROUP BY 1, 2
"""
HELD = "SELECT count(*) FROM prompts WHERE state = 'leased'"
IN_FLIGHT = "SELECT count(*) FROM attempts WHERE outcome IS NULL"
VIEWS = "SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name"
