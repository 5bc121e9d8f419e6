# Mounts a FUSE file system and leaves a process on it that waits for ever and cannot be
# killed: it waits for an answer to a request of its own that its other thread has read
# and does not answer. Both threads have the connection open, so that it does not end with
# either of them: "simple deadlock" in the kernel's Documentation/filesystems/fuse.rst.
#
# hang.py DIRECTORY [MEBIBYTES]: in DIRECTORY, keeping so much memory.
import ctypes, os, struct, sys, threading

libc = ctypes.CDLL(None, use_errno=True)
directory = sys.argv[1]
kept = bytearray(b"x") * (int((sys.argv + ["0"])[2]) << 20)
os.makedirs(directory, exist_ok=True)
fuse = os.open("/dev/fuse", os.O_RDWR)
options = b"fd=%d,rootmode=40000,user_id=%d,group_id=%d" % (fuse, os.getuid(), os.getgid())
if libc.mount(b"hang", directory.encode(), b"fuse", 0, options) < 0:
    print("mount:", os.strerror(ctypes.get_errno()), file=sys.stderr)
    sys.exit(126)

# FUSE_INIT, of linux/fuse.h: answered as version 7.31.
request = os.read(fuse, 1 << 17)
unique = struct.unpack_from("Q", request, 8)[0]
os.write(fuse, struct.pack("IiQ", 16 + 64, 0, unique) + struct.pack("IIIIHHI", 7, 31, 0, 0, 1, 1, 1 << 12) + bytes(40))

threading.Thread(target=lambda: os.stat(directory + "/x"), daemon=True).start()
os.read(fuse, 1 << 17)  # that is its LOOKUP, which stays without an answer
print("hangs", flush=True)
open("/run/hangs", "w").close()
threading.Event().wait()
