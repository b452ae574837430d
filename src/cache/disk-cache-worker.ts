/**
 * The thread that reads, checks and writes blocks of the disk cache, so that neither a slow disk nor
 * SHA-256 takes the main thread's time. A block passes through a staging place in shared memory,
 * which is the worker's from request to answer. Few operations run at a time: libuv's four threads
 * are the whole process's, and a disk that hangs must leave some of them.
 */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { BLOCK_SIZE } from "../common/sizes.js";
import { rememberSnapshot } from "./disk-cache-folder.js";
import type { DiskWorkerSetup, FromDiskWorker, ToDiskWorker } from "./disk-cache-messages.js";
import { DiskCacheStore } from "./disk-cache-store.js";

const READS = 2;

const port = parentPort as MessagePort;
const setup = workerData as DiskWorkerSetup;

function say(message: FromDiskWorker): void {
  port.postMessage(message);
}

function openStore(): DiskCacheStore | undefined {
  try {
    return new DiskCacheStore(setup.folder, setup.bytes, (what, sentence) =>
      say({ kind: "trouble", what, sentence }),
    );
  } catch (error) {
    say({ kind: "trouble", what: "off", sentence: (error as Error).message });
    return undefined;
  }
}

/** Runs tasks in order, so many at a time; as many can wait as there are staging places. */
function lane(width: number): (task: () => Promise<void>) => void {
  const waiting: (() => Promise<void>)[] = [];
  let running = 0;
  const next = async (): Promise<void> => {
    running += 1;
    for (let task = waiting.shift(); task !== undefined; task = waiting.shift()) await task();
    running -= 1;
  };
  return (task) => {
    waiting.push(task);
    if (running < width) void next();
  };
}

const store = openStore();
const reads = lane(READS);
const writes = lane(1);

function placeOf(place: number): Uint8Array {
  return new Uint8Array(setup.staging, place * BLOCK_SIZE, BLOCK_SIZE);
}

async function read(message: ToDiskWorker & { kind: "read" }): Promise<void> {
  const keys = message.keys.map((key) => Buffer.from(key));
  const found = (await store?.read(keys[0] as Buffer, placeOf(message.place))) ?? false;
  const held: number[] = [];
  if (!found) {
    for (let i = 1; i < keys.length; i += 1) if (store?.holds(keys[i] as Buffer)) held.push(i);
  }
  say({ kind: "read", id: message.id, found, held });
}

port.on("message", (message: ToDiskWorker) => {
  switch (message.kind) {
    case "read":
      reads(() => read(message));
      break;
    case "write":
      writes(async () => {
        const kept = await store?.write(Buffer.from(message.key), placeOf(message.place));
        say({ kind: "written", id: message.id, isKept: kept ?? false });
      });
      break;
    case "remember": {
      const { id, namespace, snapshotId, most } = message;
      const others = rememberSnapshot(setup.folder, namespace, snapshotId, most);
      say({ kind: "remembered", id, others });
      break;
    }
    case "close":
      // Behind the writes that were asked for before.
      writes(async () => {
        await store?.close();
        port.close();
      });
  }
});
