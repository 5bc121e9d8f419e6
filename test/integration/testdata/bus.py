# A system bus that does not mean well: bus.py KIND. It takes the place of the
# machine's own and speaks the protocol only as far as its kind of attack needs.
import os, socket, struct, sys, threading, time

kind = sys.argv[1]
PATH = "/run/dbus/system_bus_socket"


def pad(data, to=8):
    return data + bytes(-len(data) % to)


def string(text):
    data = text.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def signature(text):
    return bytes([len(text)]) + text.encode() + b"\0"


def message(kind, fields, body=b"", length=None):
    header = b""
    for number, sort, value in fields:
        header = pad(header) + bytes([number]) + signature(sort)
        if sort == "g":
            header += signature(value)
        elif sort == "u":
            header = pad(header, 4) + struct.pack("<I", value)
        else:
            header = pad(header, 4) + string(value)
    head = struct.pack("<cBBBIII", b"l", kind, 1, 1, len(body) if length is None else length, 1, len(header))
    return pad(head + header) + body


def serve(c):
    def send(data):
        if kind == "slow":
            for byte in data:
                c.sendall(bytes([byte]))
                time.sleep(1)
        c.sendall(data)

    if kind == "garbage":
        c.sendall(os.urandom(1 << 16))
    if kind == "endless line":
        while True:
            c.sendall(b"x" * (1 << 20))
    buffer = b""
    while b"BEGIN\r\n" not in buffer:
        data = c.recv(4096)
        if not data:
            return
        buffer += data
        for line in data.split(b"\r\n"):
            line = line.strip(b"\0")
            if line == b"AUTH" and not kind.startswith("passing what was written"):
                send(b"REJECTED EXTERNAL\r\n")
            elif line.startswith(b"AUTH") or line.startswith(b"DATA"):
                send(b"OK 0123456789abcdef0123456789abcdef\r\n")
            elif line == b"NEGOTIATE_UNIX_FD":
                send(b"AGREE_UNIX_FD\r\n")
    buffer = buffer.split(b"BEGIN\r\n", 1)[1]
    fds = []
    while True:
        while len(buffer) < 16 or len(buffer) < sum(lengths(buffer)):
            data, got, _, _ = socket.recv_fds(c, 1 << 16, 16)
            if not data:
                return
            buffer += data
            fds += got
        header, body = lengths(buffer)
        request, content, buffer = buffer[:header], buffer[header:header + body], buffer[header + body:]
        answer(c, send, request, content, fds)


def passed():
    """a file that whoever is handed it cannot close again"""
    import fuse
    fuse.mount("/hangs", fuse.FLUSH)
    return os.open("/hangs/f", os.O_RDWR)


def held():
    """a file that only a socket holds, and of which another one has written more: whoever
    lets go of the socket, be it unseen, waits for that to be stored"""
    import fuse
    fuse.mount("/hangs", fuse.WRITE)
    inner, outer = socket.socketpair()
    file, other = os.open("/hangs/f", os.O_RDWR), os.open("/hangs/f", os.O_RDWR)
    socket.send_fds(inner, [b"x"], [file])
    os.close(file)
    inner.close()
    os.pwrite(other, b"x" * 4096, 0)
    held.other = other
    return outer.detach()


def lengths(data):
    body, _, fields = struct.unpack_from("<III", data, 4)
    return -(-(16 + fields) // 8) * 8, body


def answer(c, send, request, content, fds):
    serial = struct.unpack_from("<I", request, 8)[0]

    def reply(sort="", body=b"", descriptors=()):
        data = message(2, [(5, "u", serial), (8, "g", sort)] if sort else [(5, "u", serial)], body)
        if descriptors:
            socket.send_fds(c, [data], descriptors)
        else:
            send(data)

    def signal(path, iface, member, sort, body):
        send(message(4, [(1, "o", path), (2, "s", iface), (3, "s", member), (8, "g", sort)], body))

    if b"Hello" in request:
        reply("s", string(":1.1"), [passed()] if kind == "passing a file" else [])
        if kind == "malformed":
            send(message(4, [(1, "o", "/org/freedesktop/DBus"), (2, "s", "org.freedesktop.DBus"), (3, "s", "NameLost"), (7, "s", "org.freedesktop.DBus"), (8, "g", "u")], struct.pack("<I", 1)))
        if kind == "malformed header":
            c.sendall(struct.pack("<cBBBIII", b"l", 2, 1, 1, 0, 1, 8) + b"\x05\x01s\x00\x01\0\0\0")
    elif kind == "away":
        # As a bus says on which systemd was and is no more.
        send(message(3, [(4, "s", "org.freedesktop.DBus.Error.NoReply"), (5, "u", serial), (8, "g", "s")],
                     string("Message recipient disconnected from message bus without replying")))
    elif b"StartTransientUnit" in request:
        if kind == "deaf":
            # It calls us, and reads no answer.
            call = message(1, [(1, "o", "/"), (2, "s", "org.freedesktop.DBus.Peer"), (3, "s", "GetMachineId"), (7, "s", ":1.2")])
            while True:
                c.sendall(call)
        if kind == "giant":
            # The sum of its lengths is small, as far as 32 bits go.
            c.sendall(message(2, [(5, "u", serial), (8, "g", "s")], length=0xFFFFFFC0))
            while True:
                c.sendall(bytes(1 << 20))
        if kind == "many values":
            # Each byte is a value of its own.
            items = b"\x01y\0\0" * (1 << 24)
            c.sendall(message(2, [(5, "u", serial), (8, "g", "av")], struct.pack("<I", len(items)) + items))
            return
        if kind == "rude":
            text = "no\x1b]0;owned\x07\x1b[31m\n\x9b2J" + "x" * 100000
            send(message(3, [(4, "s", "org.freedesktop.DBus.Error.Failed"), (5, "u", serial), (8, "g", "s")],
                         string(text)))
            return
        if kind == "cunning":
            # As if somebody had read the script to its end.
            for fd in fds:
                try:
                    os.lseek(fd, 0, os.SEEK_END)
                except OSError:
                    pass
        size = struct.unpack_from("<I", content)[0]
        unit = content[4:4 + size].decode()
        path = "".join(x if x.isalnum() else "_%02x" % ord(x) for x in unit)
        reply("o", string("/org/freedesktop/systemd1/job/1"))
        body = pad(string("org.freedesktop.systemd1.Unit"), 4)
        entry = pad(string("ActiveState") + signature("s"), 4) + string("inactive")
        body = pad(body + struct.pack("<I", len(entry))) + entry
        body = pad(body, 4) + struct.pack("<I", 0)
        signal("/org/freedesktop/systemd1/unit/" + path, "org.freedesktop.DBus.Properties", "PropertiesChanged", "sa{sv}as", body)
    elif b"GetAll" in request:
        # From the array's first element on, all is aligned as from 0.
        entries = b""
        for name, value in ("ExecMainCode", 1), ("ExecMainStatus", 0):
            entries = pad(pad(entries) + string(name) + signature("i"), 4) + struct.pack("<i", value)
        reply("a{sv}", struct.pack("<II", len(entries), 0) + entries)
    elif not request[2] & 1:  # somebody waits for a reply
        reply()


try:
    os.unlink(PATH)
except FileNotFoundError:
    pass
listener = socket.socket(socket.AF_UNIX)
listener.bind(PATH)
os.chmod(PATH, 0o666)
listener.listen(100)
os.makedirs("/hangs", exist_ok=True)
if kind.startswith("passing what was written"):
    descriptor = held()
    passing = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
open("/ready", "w")
while kind == "silent":
    time.sleep(1000)
while True:
    client = listener.accept()[0]
    if kind.startswith("passing what was written"):
        # It is to be the other's alone before that one reads.
        if kind.endswith("out of band"):
            client.sendmsg([b"R"], passing, socket.MSG_OOB)
        else:
            client.sendmsg([b"REJECTED EXTERNAL\r\n"], passing)
        os.close(descriptor)
    threading.Thread(target=serve, args=(client,), daemon=True).start()
