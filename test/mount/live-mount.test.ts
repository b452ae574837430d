/** A mount that cannot be announced is undone: its volumes are closed once, and nothing is made of them. */
import { writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Failure } from "../../src/common/failure.js";
import { Meter } from "../../src/ebs/meter.js";
import type { FuseDriver } from "../../src/fuse/driver.js";
import { LiveMount, type LiveMountOptions } from "../../src/mount/live-mount.js";
import type { Volumes } from "../../src/mount/volumes.js";
import { ReadOnlyMemoryDevice } from "../support/memory-device.js";
import { Scratch } from "../support/scratch.js";

let scratch: Scratch;
let events: string[];
beforeEach(() => {
  scratch = new Scratch();
  events = [];
});
afterEach(() => scratch.clean());

const driver: FuseDriver = {
  name: "kernel",
  async mount() {
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    events.push("mounted");
    return {
      ended,
      async unmount() {
        events.push("unmounted");
        end();
      },
    };
  },
};

function options(changed: Partial<LiveMountOptions>): LiveMountOptions {
  const volumes: Volumes = {
    list: [{ name: "volume.img", device: new ReadOnlyMemoryDevice(Buffer.alloc(4096)) }],
    directReads: () => undefined,
    cacheReading: () => ({ cached: 0, cacheSize: 0, hits: 0, misses: 0 }),
    dirtyBytes: () => 0,
    pendingSnapshot: () => undefined,
    async finish(_onProgress, signal) {
      events.push(signal.aborted ? "kept" : "committing");
      return {};
    },
    async close() {
      events.push("closed");
    },
  };
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  return {
    volumes,
    meter: new Meter(),
    driver,
    folder: { path: scratch.path, mounts: scratch.file("mounts"), logs: scratch.path },
    mountPoint: "/nowhere",
    snapshots: [],
    mode: "rw",
    mountOptions: [],
    fileSystem: { allowOther: false, readOnly: false },
    kernelReadAhead: 0,
    log: log as unknown as LiveMountOptions["log"],
    ...changed,
  };
}

it("no place for its record: undone, with no commit begun", async () => {
  writeFileSync(scratch.file("mounts"), "a file where the folder should be");
  await expect(LiveMount.start(options({}))).rejects.toThrow();
  expect(events).toEqual(["mounted", "unmounted", "kept", "closed"]);
});

it("the driver refuses: its volumes are closed", async () => {
  const mount = () => Promise.reject(new Failure("EPERM", "No."));
  const refused = options({ driver: { name: "kernel", mount } });
  await expect(LiveMount.start(refused)).rejects.toMatchObject({ errno: "EPERM" });
  expect(events).toEqual(["closed"]);
});
