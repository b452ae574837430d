/**
 * How many bytes a connection has really moved. What Node and the kernel have taken of a request's body says
 * nothing of the peer: the kernel's send buffer alone holds megabytes. So the kernel is asked what the peer
 * has acknowledged and what has come from it, over TLS and through a proxy alike.
 */
import type { Socket } from "node:net";
import { loadKoffi, loadLibc } from "../../common/libc.js";

/** Source: tcp(7) and struct tcp_info of linux/tcp.h; the two counters are there since Linux 4.1. */
const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const BYTES_ACKED_OFFSET = 120;
const BYTES_RECEIVED_OFFSET = 128;
const TCP_INFO_BYTES = 136;

type GetSocketOption = (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  length: Uint32Array,
) => number;

let getSocketOption: GetSocketOption | undefined;
let isMissing = false;
const info = Buffer.alloc(TCP_INFO_BYTES);
const length = new Uint32Array(1);

/** A number that grows when a byte moves, sent and acknowledged, or received. 0 before it is connected. */
export function bytesMoved(socket: Socket): number {
  // Node shows neither the descriptor nor libuv's queue in its types.
  const { _handle: handle } = socket as unknown as {
    _handle?: { fd?: number; writeQueueSize?: number } | null;
  };
  const fd = handle?.fd ?? -1;
  if (fd < 0 || socket.connecting || socket.destroyed) return 0;
  length[0] = TCP_INFO_BYTES;
  if (load()?.(fd, IPPROTO_TCP, TCP_INFO, info, length) === 0 && length[0] === TCP_INFO_BYTES) {
    const acknowledged = info.readBigUInt64LE(BYTES_ACKED_OFFSET);
    return Number(acknowledged + info.readBigUInt64LE(BYTES_RECEIVED_OFFSET));
  }
  // Without koffi: what the kernel has taken.
  return socket.bytesRead + socket.bytesWritten - (handle?.writeQueueSize ?? 0);
}

function load(): GetSocketOption | undefined {
  if (getSocketOption !== undefined || isMissing) return getSocketOption;
  try {
    loadKoffi();
    getSocketOption = loadLibc().func(
      "int getsockopt(int fd, int level, int name, void *value, void *length)",
    ) as unknown as GetSocketOption;
  } catch {
    isMissing = true;
  }
  return getSocketOption;
}
