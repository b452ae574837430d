/**
 * The listening half of the control socket: lets other commands ask a mount's process how it is and
 * to end. A path too long for a Unix socket (108 bytes, unix(7)) moves to a private folder in /tmp.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { errnoOf, Failure } from "../common/failure.js";
import {
  type CommitProgress,
  type ControlAnswer,
  type ControlRequest,
  lineReader,
} from "./control-protocol.js";

const MAX_SOCKET_PATH = 107;
/** Callers at one time; each is a person's command or a monitor's poll. */
const MAX_CALLERS = 32;
/** How long a caller may take to say what it wants, and to take its answer, ms. */
const PATIENCE_MS = 10_000;

export interface ControlHandler {
  status(): Promise<unknown>;
  unmount(lazy: boolean, onProgress: (progress: CommitProgress) => void): Promise<unknown>;
}

export interface ControlServer {
  readonly path: string;
  /** Stops listening; callers that wait for an answer still get it. */
  close(): void;
}

/** @param wanted where the socket should be, if the path is short enough. */
export async function listenForControl(
  wanted: string,
  handler: ControlHandler,
): Promise<ControlServer> {
  let path = wanted;
  let folder: string | undefined;
  if (Buffer.byteLength(wanted) > MAX_SOCKET_PATH) {
    folder = mkdtempSync(join(tmpdir(), "ebsmount-"));
    path = join(folder, "control");
  }
  /** Of callers that have not said yet what they want. */
  const silent = new Set<Socket>();
  const server = createServer((socket) => serve(socket, handler, silent));
  server.maxConnections = MAX_CALLERS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  return {
    path,
    close() {
      server.close();
      for (const socket of silent) socket.destroy();
      if (folder !== undefined) rmSync(dirname(path), { recursive: true, force: true });
    },
  };
}

function serve(socket: Socket, handler: ControlHandler, silent: Set<Socket>): void {
  silent.add(socket);
  const end = () => void socket.destroy();
  const patience = setTimeout(end, PATIENCE_MS).unref();
  const send = (answer: ControlAnswer) => {
    if (socket.writable) socket.write(`${JSON.stringify(answer)}\n`);
  };
  const answer = async (request: ControlRequest) => {
    clearTimeout(patience);
    silent.delete(socket);
    try {
      const progress = (now: CommitProgress) => send({ kind: "progress", progress: now });
      send({ kind: "done", result: await carryOut(request, handler, progress) });
    } catch (error) {
      send({ kind: "failed", errno: errnoOf(error), message: (error as Error).message });
    }
    socket.end();
    // The answer is not waited for beyond reason where nobody takes it.
    setTimeout(end, PATIENCE_MS).unref();
  };
  const read = lineReader((value) => void answer(value as ControlRequest));
  socket.on("close", () => {
    clearTimeout(patience);
    silent.delete(socket);
  });
  // A caller that goes away takes nothing with it: what it asked for goes on.
  socket.on("error", () => {});
  socket.on("data", (chunk) => {
    try {
      read(chunk);
    } catch {
      socket.destroy();
    }
  });
}

function carryOut(
  request: ControlRequest,
  handler: ControlHandler,
  onProgress: (progress: CommitProgress) => void,
): Promise<unknown> {
  switch (request.command) {
    case "status":
      return handler.status();
    case "unmount":
      return handler.unmount(request.lazy, onProgress);
    default:
      throw new Failure(
        "EINVAL",
        "The mount is of another version of ebsmount, which does not know this command; umount ends it.",
      );
  }
}
