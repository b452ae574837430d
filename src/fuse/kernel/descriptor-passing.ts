/**
 * A Unix socket pair and a descriptor received over it (SCM_RIGHTS), neither of which Node offers: what
 * an ordinary user's mount needs. Sources: socketpair(2), recvmsg(2),
 * unix(7), cmsg(3); the layouts are those of 64-bit Linux, where koffi runs.
 */
import { Failure } from "../../common/failure.js";
import { loadKoffi, loadLibc } from "../../common/libc.js";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2_000_000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
/** struct cmsghdr (size_t length, int level, int type) and one int, padded to 8. */
const CONTROL_BYTES = 24;

interface Calls {
  socketpair(domain: number, type: number, protocol: number, pair: Int32Array): number;
  recvmsg(fd: number, message: object, flags: number): number;
}

let calls: Calls | undefined;

function load(): Calls {
  if (calls !== undefined) return calls;
  const koffi = loadKoffi();
  const libc = loadLibc();
  const vector = koffi.struct({ base: "void *", length: "size_t" });
  const message = koffi.struct({
    name: "void *",
    nameLength: "uint32_t",
    vectors: koffi.pointer(vector),
    vectorCount: "size_t",
    control: "void *",
    controlLength: "size_t",
    flags: "int",
  });
  calls = {
    socketpair: libc.func("socketpair", "int", ["int", "int", "int", "void *"]),
    recvmsg: libc.func("recvmsg", "int64_t", ["int", koffi.pointer(message), "int"]),
  };
  return calls;
}

/** Two connected descriptors, closed on exec unless inherited on purpose. */
export function socketPair(): [number, number] {
  const pair = new Int32Array(2);
  if (load().socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) !== 0) {
    throw new Failure("EIO", "No Unix socket pair could be made; are too many files open?");
  }
  return [pair[0]!, pair[1]!];
}

/** The descriptor that waits in the socket, now ours to close; undefined where none does. */
export function receiveDescriptor(socket: number): number | undefined {
  const payload = Buffer.alloc(8);
  const control = Buffer.alloc(CONTROL_BYTES);
  const message = {
    name: null,
    nameLength: 0,
    vectors: [{ base: payload, length: payload.length }],
    vectorCount: 1,
    control,
    controlLength: CONTROL_BYTES,
    flags: 0,
  };
  const received = Number(load().recvmsg(socket, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  if (received <= 0) return undefined;
  const isDescriptor =
    control.readUInt32LE(8) === SOL_SOCKET && control.readUInt32LE(12) === SCM_RIGHTS;
  return isDescriptor ? control.readInt32LE(16) : undefined;
}
