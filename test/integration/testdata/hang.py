# Leaves a process that waits for ever on a FUSE file system and cannot be killed: it waits
# for an answer to a request of its own, which its other thread has read and does not
# answer. Both threads have the connection open, so that it does not end with either of
# them: "simple deadlock" in the kernel's Documentation/filesystems/fuse.rst.
import os, sys, threading
sys.path.insert(0, "/")
import fuse

os.makedirs("/root/fuse", exist_ok=True)
connection = fuse.connect("/root/fuse")
fuse.answer(connection)  # INIT
threading.Thread(target=os.stat, args=("/root/fuse/x",)).start()
os.read(connection, 1 << 21)  # its LOOKUP
kept = bytearray(b"x") * (50 << 20)
open("/run/hangs", "w").close()
threading.Event().wait()
