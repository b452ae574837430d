/**
 * A port whose listener accepts nothing and whose queue is full, so that a connection to it gets no response
 * at all: the kernel drops its SYN. Node accepts by itself, so the C library is called.
 */
import { connect, type Socket } from "node:net";
import { onTestFinished } from "vitest";
import { loadLibc } from "../../../src/common/libc.js";
import { pause } from "./hostile-server.js";

/** Source: sys/socket.h, asm-generic/socket.h. */
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM_CLOEXEC = 0x80001;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;

/** @param host 127.0.0.1 or ::1. @param port 0 for any. @returns the port. */
export async function fullListener(host: string, port = 0): Promise<number> {
  const libc = loadLibc();
  const makeSocket = libc.func("int socket(int domain, int type, int protocol)");
  const bind = libc.func("int bind(int fd, void *address, uint length)");
  const listen = libc.func("int listen(int fd, int backlog)");
  const close = libc.func("int close(int fd)");
  const getName = libc.func("int getsockname(int fd, void *address, void *length)");
  const isIPv6 = host.includes(":");
  const fd = makeSocket(isIPv6 ? AF_INET6 : AF_INET, SOCK_STREAM_CLOEXEC, 0) as number;
  const address = Buffer.alloc(28);
  address.writeUInt16LE(isIPv6 ? AF_INET6 : AF_INET, 0);
  address.writeUInt16BE(port, 2);
  if (isIPv6) address[23] = 1;
  else address.set([127, 0, 0, 1], 4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(isIPv6 ? 28 : 16);
  const isBound = bind(fd, address, length.readUInt32LE()) === 0 && listen(fd, 0) === 0;
  getName(fd, address, length);
  const bound = address.readUInt16BE(2);
  const fillers: Socket[] = [];
  onTestFinished(() => {
    for (const filler of fillers) filler.destroy();
    close(fd);
  });
  if (!isBound) throw new Error(`cannot listen on ${host}:${port}`);
  // The queue is full when a connection gets no response any more.
  for (let pending = 0; pending < 2; ) {
    const filler = connect({ host, port: bound });
    filler.on("error", () => {});
    fillers.push(filler);
    await pause(30);
    if (filler.connecting) pending += 1;
    if (fillers.length > 20) throw new Error("the queue does not fill");
  }
  return bound;
}

/** Makes the kernel take little for a peer that does not read. @param fd of a listener: its connections inherit it. */
export function setReceiveBuffer(fd: number, bytes: number): void {
  const setOption = loadLibc().func("int setsockopt(int, int, int, void *, uint)");
  const value = Buffer.alloc(4);
  value.writeInt32LE(bytes);
  if (setOption(fd, SOL_SOCKET, SO_RCVBUF, value, 4) !== 0)
    throw new Error("SO_RCVBUF was refused");
}
