"""What Kubernetes does with a JobSet whose pods fail, with local processes in the place of pods.

The rules are those of the Job controller (podFailurePolicy, backoffLimit) and of the JobSet controller
(failurePolicy), told again from their documentation. `backoffLimit` is taken to be 0.
"""

import subprocess
import sys
from typing import Any


def simulate(manifest: dict[str, Any], program: str, state: str) -> tuple[str, int]:
    """Run a JobSet to its end, with a Python program instead of the image.

    Args:
      manifest: the JobSet.
      program: Python code; its arguments are `state`, the number of the host, and the container's command.
      state: a folder that outlives a pod.

    Returns:
      "Completed" or "Failed", and how many times all pods were started again.
    """
    policy = manifest["spec"].get("failurePolicy", {})
    restarts = 0
    while True:
        reason = _run_once(manifest, program, state)
        if reason is None:
            return "Completed", restarts
        action = next(
            (
                rule["action"]
                for rule in policy.get("rules", [])
                if reason in rule.get("onJobFailureReasons", [reason])
            ),
            "RestartJobSet",
        )
        if action == "FailJobSet" or restarts >= policy.get("maxRestarts", 0):
            return "Failed", restarts
        restarts += 1


def _run_once(manifest: dict[str, Any], program: str, state: str) -> str | None:
    """Run all pods once; return the reason for which a Job failed, or None."""
    pods = []
    for job in manifest["spec"]["replicatedJobs"]:
        spec = job["template"]["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        for slice_ in range(job["replicas"]):
            for index in range(spec["completions"]):
                host = str(slice_ * spec["completions"] + index)
                command = [sys.executable, "-c", program, state, host, *container["command"]]
                pods.append((spec, container["name"], subprocess.Popen(command)))
    reasons = [_reason(spec, name, pod.wait(timeout=60)) for spec, name, pod in pods]
    return next((reason for reason in reasons if reason), None)


def _reason(spec: dict[str, Any], container: str, code: int) -> str | None:
    if code == 0:
        return None
    code = code if code > 0 else 128 - code
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        on = rule.get("onExitCodes")
        if on is None or on.get("containerName", container) != container:
            continue
        if (code in on["values"]) == (on["operator"] == "In"):
            return "PodFailurePolicy" if rule["action"] == "FailJob" else "BackoffLimitExceeded"
    return "BackoffLimitExceeded"
