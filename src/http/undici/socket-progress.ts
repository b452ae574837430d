/** How much one of Node's sockets has moved, by the kernel's word where it gives it. */
import type { Socket } from "node:net";
import { type TcpProgress, tcpProgress } from "../tcp-progress.js";

const NOTHING: TcpProgress = { sent: 0, received: 0 };

/** @param tcp the socket that the kernel knows, without TLS; undefined before there is one. */
export function progressOf(tcp: Socket | undefined): TcpProgress {
  if (tcp === undefined || tcp.destroyed) return NOTHING;
  // Node's types show neither the descriptor nor libuv's queue.
  const { _handle: handle } = tcp as unknown as {
    _handle?: { fd?: number; writeQueueSize?: number } | null;
  };
  const fd = handle?.fd ?? -1;
  const known = fd < 0 ? undefined : tcpProgress(fd);
  if (known !== undefined) return known;
  // What the kernel has taken.
  return { sent: tcp.bytesWritten - (handle?.writeQueueSize ?? 0), received: tcp.bytesRead };
}
