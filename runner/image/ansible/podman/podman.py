#!/usr/bin/python3
# Copyright: the authors of nspawn-runner
# GNU General Public License v3.0+
"""What `podman exec [-u USER] -i HOST COMMAND...` is to a container, for the image that
nspawn-runner is building. The module ansible.posix.synchronize has rsync call it.

The inventory, which lies in the directory above, says how to enter.
"""

import json
import os
import shutil
import sys


def main():
    arguments = sys.argv[1:]
    user = None
    if arguments[:2] == ["exec", "-u"]:
        user = arguments[2]
        del arguments[1:3]
    if arguments[:2] != ["exec", "-i"] or len(arguments) < 4:
        sys.exit("usage: %s exec [-u USER] -i HOST COMMAND..." % sys.argv[0])
    inventory = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "inventory.yaml")
    with open(inventory, encoding="utf-8") as text:
        (host,) = json.load(text)["all"]["hosts"].values()
    # rsync quotes for a shell, as there is one at the other end of ssh.
    command = ["/bin/sh", "-c", " ".join(arguments[3:])]
    if user not in (None, "root"):
        command = ["runuser", "-u", user, "--"] + command
    if host["ansible_chroot_group"]:
        with open(os.path.join(host["ansible_chroot_group"], "cgroup.procs"), "w", encoding="ascii") as procs:
            procs.write("0")
    os.umask(0o022)
    enter = host["ansible_chroot_enter"]
    os.execve(shutil.which(enter[0]), enter + command, host["ansible_chroot_environment"])


if __name__ == "__main__":
    main()
