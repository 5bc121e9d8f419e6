# forge.py ADDRESS PORT: opens a TCP connection by hand, with packets that go
# straight out of the machine's interface, whatever its kernel thinks of ADDRESS.
import socket, struct, sys, time

to, port = sys.argv[1], int(sys.argv[2])
six = ":" in to
family = socket.AF_INET6 if six else socket.AF_INET
with open("/sys/class/net/host0/address") as f:
    mac = bytes.fromhex(f.read().strip().replace(":", ""))
source = "fe80::1234" if six else "192.0.0.2"
src, dst = socket.inet_pton(family, source), socket.inet_pton(family, to)

def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

def segment():
    head = lambda check: struct.pack("!HHIIBBHHH", 40000 + port % 20000, port, 1, 0, 5 << 4, 2, 65000, check, 0)
    pseudo = src + dst + (struct.pack("!II", 20, 6) if six else struct.pack("!BBH", 0, 6, 20))
    return head(checksum(pseudo + head(0)))

tcp = segment()
if six:
    packet = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + src + dst + tcp
else:
    head = lambda check: struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, check) + src + dst
    packet = head(checksum(head(0))) + tcp

raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("host0", 0))
for _ in range(3):
    raw.send(b"\xff" * 6 + mac + struct.pack("!H", 0x86DD if six else 0x0800) + packet)
    time.sleep(0.1)
