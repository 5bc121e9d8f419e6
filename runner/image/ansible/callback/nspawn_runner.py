# Copyright: the authors of nspawn-runner
# GNU General Public License v3.0+
"""Tells nspawn-runner which task failed and why, one JSON object a line, and in
the end how many tasks changed something, and the names of some of them.

What ansible prints is for people, and how it looks is for the user's
ansible.cfg to say: it cannot be read by a program.
"""

DOCUMENTATION = """
    name: nspawn_runner
    type: notification
    short_description: note failed tasks, and what all of them did, in files
    description: Writes to the files named by NSPAWN_RUNNER_FAILURES and NSPAWN_RUNNER_TALLY.
    author: nspawn-runner
"""

import json
import os

from ansible.plugins.callback import CallbackBase


# A person wants to know some of the tasks that changed something.
MOST_NAMES = 3


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "nspawn_runner"
    CALLBACK_NEEDS_ENABLED = False
    CALLBACK_NEEDS_WHITELIST = False

    def __init__(self):
        super().__init__()
        self._tasks = {"changed": [], "ignored": []}

    def v2_runner_on_ok(self, result):
        if result.is_changed():
            self._name("changed", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not ignore_errors:
            self._note(result)
            return
        self._name("ignored", result)
        self.v2_runner_on_ok(result)

    def v2_runner_on_unreachable(self, result):
        self._note(result)

    def v2_playbook_on_stats(self, stats):
        kinds = ("ok", "changed", "ignored")
        tally = {kind: sum(getattr(stats, kind).values()) for kind in kinds}
        tally["tasks"] = self._tasks
        with open(os.environ["NSPAWN_RUNNER_TALLY"], "w", encoding="utf-8") as file:
            json.dump(tally, file)

    def _name(self, kind, result):
        name, names = result._task.get_name(), self._tasks[kind]
        if name not in names and len(names) < MOST_NAMES:
            names.append(name)

    def _note(self, result):
        outcome = result._result
        # A loop says only that some item failed: the first of them says why.
        failed = [item for item in outcome.get("results", []) if isinstance(item, dict) and item.get("failed")]
        reason = failed[0] if failed else outcome
        if "censored" in outcome or reason.get("_ansible_no_log"):
            reason = {"msg": "its output is hidden by no_log"}
        texts = [reason.get(key) for key in ("msg", "reason", "stderr", "module_stderr")]
        note = {
            "task": result._task.get_name(),
            "output": str(reason.get("stdout", ""))[-1000:],
            "lines": [line for text in texts if isinstance(text, str) for line in map(str.strip, text.splitlines()) if line],
        }
        with open(os.environ["NSPAWN_RUNNER_FAILURES"], "a", encoding="utf-8") as notes:
            notes.write(json.dumps(note) + "\n")
