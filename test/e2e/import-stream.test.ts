/**
 * Images out of pipes and sockets, for real: from export and from a decompressor, named or as standard
 * input; streams that are too short, too long or silent; and an import that is gone on with.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { open, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { BLOCK_SIZE, GIB, MIB } from "../../src/common/sizes.js";
import { noise } from "../support/pieces.js";
import { Rig } from "../support/rig.js";
import { CLI, must, type Ran, run, until } from "../support/scratch.js";
import { blocksOf } from "../support/volume-view.js";

const BLOCKS = 19;
/** The last block is not whole, and four of them are zeros. */
const SIZE = BLOCKS * BLOCK_SIZE - 700;
const ALL = [...Array(BLOCKS).keys()];
const ZEROS = [4, 5, 6, 7];

let rig: Rig;
let image: string;
const children = new Set<ChildProcess>();

beforeAll(async () => {
  rig = await Rig.start();
  image = rig.scratch.file("disk.img");
  const bytes = noise(SIZE);
  bytes.fill(0, 4 * BLOCK_SIZE, 8 * BLOCK_SIZE);
  await writeFile(image, bytes);
});
afterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  children.clear();
});
afterAll(() => rig.clean());

/** Runs a script in which `$ebsmount` is this program and `$image` the image's path. */
function shell(script: string): Promise<Ran> {
  return run("bash", ["-o", "pipefail", "-c", script], { env: shellEnv() });
}

function shellEnv(): Record<string, string> {
  // A shell that is killed leaves its children behind: each has its own limit.
  return { ...rig.env, ebsmount: `timeout -s KILL 100 ${process.execPath} ${CLI}`, image };
}

/** The id that a script printed. */
async function imported(script: string): Promise<string> {
  const { status, stdout, stderr } = await shell(script);
  expect(status, stderr).toBe(0);
  expect(stdout).toMatch(/^snap-[0-9a-f]{17}\n$/);
  return stdout.trim();
}

async function expectImage(snapshot: string): Promise<void> {
  const back = rig.scratch.file(`${snapshot}.img`);
  await rig.must(["export", snapshot, back]);
  await must("cmp", ["-n", String(SIZE), image, back]);
}

/** Puts that the endpoint took. */
function puts(): number {
  const { calls, errors, unanswered } = rig.endpoint.stats().operations.PutSnapshotBlock;
  return calls - errors - unanswered;
}

describe("an image from", () => {
  it("export's standard output", async () => {
    const whole = await rig.image("whole.img", GIB, [0, 3 * MIB], [GIB - MIB, MIB]);
    const first = await rig.import(whole);
    const second = await imported(
      `$ebsmount export ${first} - | $ebsmount import - --size 1GiB --omit-zero-blocks`,
    );
    expect(await blocksOf(rig, second)).toEqual(await blocksOf(rig, first));
    const back = rig.scratch.file("whole-back.img");
    await rig.must(["export", second, back]);
    await must("cmp", [whole, back]);
  });

  it.each([
    ["a decompressor", "gzip -c $image | gzip -dc | $ebsmount import -", ALL],
    ["a pipe, without its zeros", "cat $image | $ebsmount import - --omit-zero-blocks", undefined],
    ["a writer of small pieces", "dd if=$image bs=1000 status=none | $ebsmount import -", ALL],
    ["process substitution", "$ebsmount import <(cat $image)", ALL],
    ["/dev/stdin", "cat $image | $ebsmount import /dev/stdin", ALL],
    ["a file as standard input", "$ebsmount import - < $image", ALL],
  ])("%s", async (_, script, blocks = ALL.filter((block) => !ZEROS.includes(block))) => {
    const snapshot = await imported(script.replace(/import/, `import --size ${SIZE}`));
    expect(await blocksOf(rig, snapshot)).toEqual(blocks);
    await expectImage(snapshot);
  });

  it("a named pipe whose writer comes later, or has gone before", async () => {
    const late = rig.scratch.file("late");
    await must("mkfifo", [late]);
    rig.endpoint.resetStats();
    const importing = imported(`$ebsmount import ${late} --size ${SIZE}`);
    await until("the import waits", () => rig.endpoint.stats().operations.StartSnapshot.calls > 0);
    await must("sh", ["-c", `cat ${image} > ${late}`]);
    await expectImage(await importing);

    const early = rig.scratch.file("early");
    await must("mkfifo", [early]);
    const script = `head -c 1000 $image > ${early} & { wait $!; $ebsmount import - --size 1000; } < ${early}`;
    await imported(script);
  });

  it("a Unix socket, named or as standard input", async () => {
    const path = rig.scratch.file("image.sock");
    const bytes = await readFile(image);
    const server = createServer((socket) => socket.on("error", () => {}).end(bytes));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      await expectImage(await imported(`$ebsmount import ${path} --size ${SIZE}`));
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
    const gone = await shell(`$ebsmount import ${path} --size ${SIZE}`);
    expect(gone).toMatchObject({ status: 1, stderr: expect.stringMatching(/cannot be opened/) });

    // Node gives its children sockets.
    const { status } = await rig.run(["import", "-", "--size", "5"], { input: "12345" });
    expect(status).toBe(0);
  });

  it("a pipe, over a parent: what differs is put", async () => {
    const parent = await rig.import(image);
    rig.endpoint.resetStats();
    const child = await imported(
      `{ head -c ${BLOCK_SIZE} /dev/zero; tail -c +${BLOCK_SIZE + 1} $image; } | $ebsmount import - --size ${SIZE} --parent ${parent}`,
    );
    expect(puts()).toBe(1);
    expect(await blocksOf(rig, child)).toEqual(ALL);
  });
});

describe("refused, with nothing started:", () => {
  it.each([
    ["a pipe without --size", "cat $image | $ebsmount import -", /give its size, such as --size/],
    ["a named pipe without one", "$ebsmount import <(cat $image)", /is a pipe.*give its size/],
    ["one that has no writer", "mkfifo $image.fifo; $ebsmount import $image.fifo", /is a pipe/],
    ["a file of another size", "$ebsmount import $image --size 1GiB", /but --size says 1073741824/],
    ["a file that was read in part", "{ read -N 9; $ebsmount import -; } < $image", /up to byte/],
    ["a device without end", "$ebsmount import - --size 1000 < /dev/zero", /standard input is no/],
  ])("%s", async (_, script, sentence) => {
    rig.endpoint.resetStats();
    const { status, stderr } = await shell(script);
    expect(status).toBeGreaterThan(0);
    expect(stderr).toMatch(sentence);
    expect(rig.endpoint.stats().operations.StartSnapshot.calls).toBe(0);
  });
});

it("a stream that goes on after its size completes nothing", async () => {
  rig.endpoint.resetStats();
  const { status, stderr } = await shell(
    `{ cat $image; printf x; } | $ebsmount import - --size ${SIZE}`,
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(`goes on after the ${SIZE} bytes`);
  expect(rig.endpoint.stats().operations.CompleteSnapshot.calls).toBe(0);
});

it("one that ends early completes nothing, and is gone on with", async () => {
  rig.endpoint.resetStats();
  const { status, stderr } = await shell(
    `head -c ${5 * BLOCK_SIZE + 9} $image | $ebsmount import - --size ${SIZE}`,
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(`ended after ${5 * BLOCK_SIZE + 9} of the ${SIZE} bytes`);
  expect(rig.endpoint.stats().operations.CompleteSnapshot.calls).toBe(0);
  const noted = digests(stderr);
  rig.endpoint.resetStats();
  await expectImage(await goOn(stderr));
  expect(puts()).toBe(BLOCKS - noted);
});

/** Blocks that the state folder knows to be put into the snapshot that a sentence names. */
function digests(sentence: string): number {
  const snapshot = /snap-[0-9a-f]{17}/.exec(sentence)?.[0];
  const ledger = readFileSync(rig.scratch.file(`state/imports/${snapshot}.digests`));
  let count = 0;
  for (let at = 0; at < ledger.length; at += 32) if (ledger[at] || ledger[at + 1]) count += 1;
  return count;
}

/** Imports the whole image with the client token that a sentence names. */
async function goOn(sentence: string): Promise<string> {
  const token = /--client-token (\S+)/.exec(sentence)?.[1];
  return await imported(`cat $image | $ebsmount import - --size ${SIZE} --client-token ${token}`);
}

/** Each script reads what is written into the pipe $feed. */
describe.each([
  ["a pipe", `cat $feed | { echo "pid $BASHPID" >&2; exec $ebsmount import - --size ${SIZE}; }`],
  ["a named pipe", `echo "pid $$" >&2; exec $ebsmount import $feed --size ${SIZE}`],
  ["one as standard input", `echo "pid $$" >&2; exec $ebsmount import - --size ${SIZE} < $feed`],
])("an import from %s that is silent", (name, script) => {
  it("ends at once by SIGINT, and is gone on with", async () => {
    const feed = rig.scratch.file(name.replaceAll(" ", "-"));
    await must("mkfifo", [feed]);
    // Also for reading, so that opening waits for nobody.
    const writer = await open(feed, "r+");
    try {
      const args = ["-o", "pipefail", "-c", script];
      const child = spawn("bash", args, {
        env: { ...process.env, ...shellEnv(), feed },
        stdio: ["ignore", "ignore", "pipe"],
      });
      children.add(child);
      let stderr = "";
      child.stderr.on("data", (chunk) => {
        stderr += chunk;
      });
      const imports = () => readdirSync(rig.scratch.file("state/imports"));
      const before = existsSync(rig.scratch.file("state/imports")) ? imports() : [];
      const bytes = (await readFile(image)).subarray(0, 3 * BLOCK_SIZE + 100);
      await writer.write(bytes);
      const ledger = await until("a snapshot is started", () =>
        existsSync(rig.scratch.file("state/imports"))
          ? imports().find((found) => !before.includes(found))
          : undefined,
      );
      await until("what came is put", () => digests(ledger) === 3);
      const pid = Number(/pid (\d+)/.exec(stderr)?.[1]);
      process.kill(pid, "SIGINT");
      await until("it has ended", () => !existsSync(`/proc/${pid}`), 3_000);
      await until("it said so", () => stderr.includes("--client-token"));
      expect(stderr).toMatch(/Interrupted\. The unfinished snap-/);
      rig.endpoint.resetStats();
      await expectImage(await goOn(stderr));
      expect(puts()).toBe(BLOCKS - 3);
    } finally {
      await writer.close();
    }
  });
});
