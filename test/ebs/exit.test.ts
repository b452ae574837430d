/** A process with requests under way, in libcurl's own waits, ends when it should. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { block } from "./stub-service.js";

const CHILD = fileURLToPath(new URL("exit-child.mjs", import.meta.url));
const DATA = Buffer.alloc(BLOCK_SIZE, 3);
let server: Server | undefined;

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

test.each([
  ["exit", 7, null],
  ["throw", 1, null],
  ["return", 0, null],
  ["SIGTERM", null, "SIGTERM"],
] as const)("by %s, with forty blocks under way", async (how, status, signal) => {
  let hanging = 0;
  server = createServer((request, response) => {
    const index = Number(/blocks\/(\d+)/.exec(request.url ?? "")?.[1]);
    if (index < 100) return block(DATA)(request, response, DATA);
    hanging += 1;
  });
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const child = fork(CHILD, [url, how], {
    env: { ...process.env, AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" },
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  try {
    // Eight requests a thread before the first success, then one more for each.
    await expect.poll(() => hanging, { timeout: 20_000 }).toBeGreaterThan(15);
    const ended = once(child, "exit");
    if (how === "SIGTERM") child.kill("SIGTERM");
    else child.send("end");
    const limit = new Promise((resolve) => setTimeout(resolve, 5_000, "it still runs"));
    expect(await Promise.race([ended, limit])).toEqual([status, signal]);
  } finally {
    child.kill("SIGKILL");
  }
});
