/** A mount's control socket, and callers that are not as they should be. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { askMount } from "../../src/mount/control-client.js";
import { lineReader } from "../../src/mount/control-protocol.js";
import { type ControlServer, listenForControl } from "../../src/mount/control-server.js";
import { Scratch, until } from "../support/scratch.js";

let scratch: Scratch;
let server: ControlServer;
let ends: boolean[];
beforeEach(async () => {
  scratch = new Scratch();
  ends = [];
  server = await listenForControl(scratch.file("control"), {
    status: async () => ({ phase: "“mounted”" }),
    unmount: async (lazy, onProgress) => {
      ends.push(lazy);
      onProgress({ blocksDone: 1, blocksTotal: 2 });
      return { snapshotId: "snap-1" };
    },
  });
  scratch.undo(() => server.close());
});
afterEach(() => scratch.clean());

function caller(): Socket {
  const socket = connect(server.path);
  scratch.undo(() => socket.destroy());
  return socket;
}

it("answers status and unmount, with progress", async () => {
  expect(await askMount(server.path, { command: "status" })).toEqual({ phase: "“mounted”" });
  const progress: unknown[] = [];
  const onProgress = (now: unknown) => progress.push(now);
  const request = { command: "unmount", lazy: true } as const;
  expect(await askMount(server.path, request, { onProgress })).toEqual({ snapshotId: "snap-1" });
  expect(progress).toEqual([{ blocksDone: 1, blocksTotal: 2 }]);
  expect(ends).toEqual([true]);
});

it("refuses what it does not know, and ends nothing", async () => {
  const request = { command: "refresh" } as unknown as { command: "status" };
  await expect(askMount(server.path, request)).rejects.toMatchObject({ errno: "EINVAL" });
  expect(ends).toEqual([]);
});

it("lets go of callers that say nothing when the mount ends", async () => {
  const silent = caller();
  await once(silent, "connect");
  // An answer to another shows that this one has been accepted.
  await askMount(server.path, { command: "status" });
  let closed = false;
  silent.on("close", () => {
    closed = true;
  });
  server.close();
  await until("the silent caller is let go", () => closed);
});

it("puts characters together that came in two pieces", () => {
  const lines: unknown[] = [];
  const read = lineReader((line) => lines.push(line));
  const bytes = Buffer.from(`${JSON.stringify({ message: "it’s" })}\n`);
  for (const byte of bytes) read(Buffer.from([byte]));
  expect(lines).toEqual([{ message: "it’s" }]);
});
