/**
 * The listening half of the control socket: lets other commands ask a mount's process how it is and
 * to end. A path too long for a Unix socket (108 bytes, unix(7)) moves to a private folder in /tmp.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { errnoOf } from "../common/failure.js";
import {
  type CommitProgress,
  type ControlAnswer,
  type ControlRequest,
  lineReader,
} from "./control-protocol.js";

const MAX_SOCKET_PATH = 107;
/** Callers at one time; each is a person's command or a monitor's poll. */
const MAX_CALLERS = 32;

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
  const server = createServer((socket) => serve(socket, handler));
  server.maxConnections = MAX_CALLERS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  return {
    path,
    close() {
      server.close();
      if (folder !== undefined) rmSync(dirname(path), { recursive: true, force: true });
    },
  };
}

function serve(socket: Socket, handler: ControlHandler): void {
  const send = (answer: ControlAnswer) => {
    if (socket.writable) socket.write(`${JSON.stringify(answer)}\n`);
  };
  const answer = async (request: ControlRequest) => {
    try {
      const result =
        request.command === "status"
          ? await handler.status()
          : await handler.unmount(request.lazy, (progress) => send({ kind: "progress", progress }));
      send({ kind: "done", result });
    } catch (error) {
      send({ kind: "failed", errno: errnoOf(error), message: (error as Error).message });
    }
    socket.end();
  };
  const read = lineReader((value) => void answer(value as ControlRequest));
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
