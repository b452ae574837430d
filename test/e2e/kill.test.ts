/**
 * kill -9 at random moments of writing and of committing. Whatever was flushed must be in the snapshot
 * that resume or commit then makes, and there must be one new snapshot, none left pending.
 * EBSMOUNT_KILL_ROUNDS=100 runs it for long; EBSMOUNT_KILL_SEED repeats the moments of a round that failed.
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { BLOCK_SIZE, GIB, MIB } from "../../src/common/sizes.js";
import { randomSource } from "../support/random.js";
import { Rig } from "../support/rig.js";
import { must, until } from "../support/scratch.js";

const ROUNDS = Number(process.env.EBSMOUNT_KILL_ROUNDS ?? 6);
const SEED = Number(process.env.EBSMOUNT_KILL_SEED ?? Date.now() % 1_000_000);
/** Flushed writes go below, writes that may be lost above: so it is known which must be there. */
const SAFE = 64 * MIB;

let rig: Rig;
let image: string;
let parent: string;

beforeAll(async () => {
  rig = await Rig.start();
  image = await rig.image("base.img", GIB, [20 * MIB, 8 * MIB]);
  parent = await rig.import(image);
});
afterAll(() => rig.clean());

function newSnapshots(before: ReadonlySet<string>): { id: string; status: string }[] {
  return rig.endpoint
    .stats()
    .snapshots.map(({ snapshotId, status }) => ({ id: snapshotId, status }))
    .filter(({ id }) => !before.has(id));
}

async function scribble(
  random: () => number,
  files: readonly FileHandle[],
  from: number,
  to: number,
): Promise<void> {
  const data = randomBytes(1 + Math.floor(random() * 100_000));
  const offset = from + Math.floor(random() * (to - from - data.length));
  for (const file of files) await file.write(data, 0, data.length, offset);
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

it.each(Array.from({ length: ROUNDS }, (_, round) => round))(
  `round %i of seed ${SEED}`,
  async (round) => {
    const random = randomSource(SEED + round);
    const before = new Set(newSnapshots(new Set()).map(({ id }) => id));
    const whileCommitting = round % 2 === 1;
    const model = rig.scratch.file(`model-${round}`);
    await must("cp", ["--sparse=always", image, model]);
    const args = round % 3 === 0 ? ["--no-writeback"] : ["--writeback-delay", "100ms"];
    const place = await rig.mount(["mount", "--rw", ...args, parent], `kill-${round}`);
    const { mounts } = JSON.parse(await rig.must(["status", "--json"]));
    const { pid, session } = mounts.find((m: { mountPoint: string }) => m.mountPoint === place);

    const [a, b] = await Promise.all([open(`${place}/${parent}.img`, "r+"), open(model, "r+")]);
    for (let i = 0; i < 20; i += 1) await scribble(random, [a, b], 0, SAFE);
    await a.datasync();
    let ending: Promise<unknown> = Promise.resolve();
    if (whileCommitting) {
      await a.close();
      // The endpoint is slow, so that there is a commit to be hit.
      rig.endpoint.faults.add({ action: "latency", ms: 10, jitterMs: 30 });
      ending = rig.run(["unmount", place]);
      await pause(100 + random() * 900);
    } else {
      const writing = (async () => {
        for (;;) await scribble(random, [a], SAFE, 2 * SAFE);
      })();
      ending = writing.catch(() => {});
      await pause(random() * 400);
    }
    if (existsSync(`/proc/${pid}`)) process.kill(pid, "SIGKILL");
    await until("the process is gone", () => !existsSync(`/proc/${pid}`));
    await ending;
    await a.close().catch(() => {});
    await b.close();
    rig.endpoint.faults.clear();
    await rig.run(["unmount", place]);

    const { sessions } = JSON.parse(await rig.must(["sessions", "--json"]));
    if (sessions.length > 0) {
      expect(sessions).toMatchObject([{ id: session, inUse: false }]);
      const isCompleting = sessions[0].state !== "open";
      if (round % 4 < 2 || isCompleting) await rig.must(["commit", session]);
      else {
        const again = await rig.mount(["mount", "--resume", session], `resume-${round}`);
        await rig.must(["unmount", again]);
      }
    }
    const made = newSnapshots(before);
    expect(made).toMatchObject([{ status: "completed" }]);
    const out = rig.scratch.file(`out-${round}`);
    await rig.must(["export", made[0]?.id as string, out]);
    await must("cmp", ["-n", String(SAFE), model, out]);
    await must("cmp", ["-i", String(2 * SAFE + BLOCK_SIZE), "-n", String(SAFE), model, out]);
    await must("rm", [model, out]);
  },
  60_000,
);
