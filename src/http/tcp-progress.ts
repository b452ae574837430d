/**
 * How many bytes a connection has really moved. What a program and its kernel have taken of a request's body
 * says nothing of the peer: the kernel's send buffer alone holds megabytes. So the kernel is asked what the
 * peer has acknowledged and what has come from it, over TLS and through a proxy alike.
 */
import { loadLibc } from "../common/libc.js";

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

/** Bytes of a connection since it was made, those of TLS included. */
export interface TcpProgress {
  /** Sent, and acknowledged by the peer. */
  readonly sent: number;
  readonly received: number;
}

/**
 * @param fd of a connected TCP socket.
 * @returns undefined where the kernel does not say, or koffi does not load.
 */
export function tcpProgress(fd: number): TcpProgress | undefined {
  length[0] = TCP_INFO_BYTES;
  if (load()?.(fd, IPPROTO_TCP, TCP_INFO, info, length) !== 0) return undefined;
  if (length[0] !== TCP_INFO_BYTES) return undefined;
  return { sent: numberAt(BYTES_ACKED_OFFSET), received: numberAt(BYTES_RECEIVED_OFFSET) };
}

/** 64 bits; what a connection moves fits a double. */
function numberAt(offset: number): number {
  return info.readUInt32LE(offset) + info.readUInt32LE(offset + 4) * 2 ** 32;
}

function load(): GetSocketOption | undefined {
  if (getSocketOption !== undefined || isMissing) return getSocketOption;
  try {
    const declaration = "int getsockopt(int fd, int level, int name, void *value, void *length)";
    getSocketOption = loadLibc().func(declaration) as unknown as GetSocketOption;
  } catch {
    isMissing = true;
  }
  return getSocketOption;
}
