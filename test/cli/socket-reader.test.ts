/**
 * Bytes through a real Unix socket come as they were sent, whatever is written and read at a time; no
 * more is taken from the peer than was asked for, and a silent one is let go.
 */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SocketReader } from "../../src/cli/socket-reader.js";
import { KIB, MIB } from "../../src/common/sizes.js";
import { noise } from "../support/pieces.js";

let folder: string;
let path: string;
let server: Server;
const peers: Socket[] = [];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ebsmount-socket-"));
  path = join(folder, "image.sock");
  server = createServer((socket) => peers.push(socket.on("error", () => {})));
  await new Promise<void>((resolve) => server.listen(path, resolve));
});
afterAll(async () => {
  for (const peer of peers) peer.destroy();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

async function connected(): Promise<{ reader: SocketReader; peer: Socket }> {
  const accepted = once(server, "connection");
  const reader = SocketReader.connectTo(path);
  return { reader, peer: (await accepted)[0] as Socket };
}

/** Takes effect only after the event loop has looked at its sockets several times. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

const sizes = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 300 * KIB })),
  {
    minLength: 1,
    maxLength: 12,
  },
);

test("what is written in any pieces is read in any pieces, to the end", async () => {
  await fc.assert(
    fc.asyncProperty(sizes, sizes, fc.boolean(), async (written, wanted, isLate) => {
      const bytes = noise(written.reduce((sum, size) => sum + size, 0));
      const { reader, peer } = await connected();
      const write = () => {
        let at = 0;
        for (const size of written) {
          peer.write(bytes.subarray(at, at + size));
          at += size;
        }
        peer.end();
      };
      if (!isLate) write();
      await turns();
      const got = Buffer.alloc(bytes.length + 1);
      let done = 0;
      for (let turn = 0; ; turn += 1) {
        const reading = reader.read(
          got.subarray(done, done + (wanted[turn % wanted.length] as number)),
        );
        if (isLate && turn === 0) write();
        const count = await reading;
        if (count === 0) break;
        done += count;
      }
      expect(done).toBe(bytes.length);
      expect(bytes.equals(got.subarray(0, done))).toBe(true);
      expect(await reader.read(got)).toBe(0);
      reader.close();
    }),
    { numRuns: 40 },
  );
});

test("a peer is held up while nothing is read", async () => {
  const { reader, peer } = await connected();
  let sent = 0;
  const send = () => {
    peer.write(Buffer.alloc(64 * KIB), () => {
      sent += 64 * KIB;
      if (sent < 64 * MIB) send();
    });
  };
  send();
  await reader.read(new Uint8Array(1));
  let before: number;
  do {
    before = sent;
    await turns();
  } while (sent !== before);
  expect(sent).toBeLessThan(MIB);
  reader.close();
  peer.destroy();
});

test("the signal ends a wait for a silent peer, and the connection", async () => {
  const { reader, peer } = await connected();
  const closed = once(peer, "close");
  const stop = new AbortController();
  const reading = reader.read(new Uint8Array(9), stop.signal);
  await turns();
  const reason = new Error("enough");
  stop.abort(reason);
  await expect(reading).rejects.toBe(reason);
  peer.resume();
  await closed;
  await expect(reader.read(new Uint8Array(9), stop.signal)).rejects.toBe(reason);
});

test("a connection that cannot be made is an error, however late it is read", async () => {
  const reader = SocketReader.connectTo(join(folder, "none.sock"));
  await turns();
  for (const _ of [1, 2]) {
    await expect(reader.read(new Uint8Array(1))).rejects.toMatchObject({ code: "ENOENT" });
  }
});
