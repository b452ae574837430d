/**
 * What a bench makes on the machine: a scratch folder, the local endpoint in a process of its own,
 * mounts, loop devices, peers. All of it is taken away again when the bench ends, however it ends;
 * so everything here that undoes something is synchronous.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const CLI = fileURLToPath(new URL("../../../dist/cli/main.js", import.meta.url));
export const MIB = 1024 * 1024;
export const BLOCK_SIZE = 512 * 1024;

/** On a real disk, because a tmpfs may be too small and has no O_DIRECT everywhere. */
export const scratch = mkdtempSync(join(process.env.TMPDIR ?? "/var/tmp", "ebsmount-bench-"));

export const env = {
  ...process.env,
  EBSMOUNT_REGION: "us-east-1",
  EBSMOUNT_STATE_DIR: join(scratch, "state"),
  AWS_REGION: "us-east-1",
  AWS_ACCESS_KEY_ID: "bench",
  AWS_SECRET_ACCESS_KEY: "bench",
  AWS_EC2_METADATA_DISABLED: "true",
};

const undo = [];
process.on("exit", () => {
  for (const action of undo.reverse()) {
    try {
      action();
    } catch (error) {
      console.error(`bench clean-up: ${error.message}`);
    }
  }
  rmSync(scratch, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));

/** Registers what takes something away again. @returns a function that does so now, once. */
export function atEnd(action) {
  let done = false;
  const once = () => {
    if (done) return undefined;
    done = true;
    return action();
  };
  undo.push(once);
  return once;
}

/** Runs a command to its end. @returns what it printed. @throws with what it said. */
export function must(command, args, options = {}) {
  const ran = spawnSync(command, args, {
    env,
    encoding: "utf8",
    maxBuffer: 64 * MIB,
    timeout: 300_000,
    ...options,
  });
  if (ran.status !== 0) {
    const why = ran.error?.message ?? `status ${ran.status}\n${ran.stderr}`;
    throw new Error(`${command} ${args.join(" ")}: ${why}`);
  }
  return ran.stdout;
}

export const ebsmount = (...args) => must(process.execPath, [CLI, ...args]);

/** As must, but this process can go on meanwhile. */
export function mustAsync(command, args, limitMs = 300_000) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env,
      stdio: ["ignore", "pipe", "pipe"],
      timeout: limitMs,
    });
    const said = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"]) {
      child[name].on("data", (chunk) => {
        said[name] += chunk;
      });
    }
    child.on("error", reject);
    child.on("close", (status) => {
      if (status === 0) resolve(said.stdout);
      else reject(new Error(`${command} ${args.join(" ")}: status ${status}\n${said.stderr}`));
    });
  });
}

/** Waits for a condition, at most `limitMs`. */
export async function until(what, probe, limitMs = 30_000) {
  const end = Date.now() + limitMs;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
    await sleep(20);
  }
}

function startProcess(command, args, log) {
  const output = openSync(log, "w");
  const child = spawn(command, args, { env, stdio: ["ignore", output, output] });
  // It must not keep the bench from ending: the end is what stops it.
  child.unref();
  const stop = atEnd(() => {
    child.kill("SIGTERM");
    // The event loop stands still here; the process is gone when its /proc entry is, or a zombie.
    for (let i = 0; i < 500; i += 1) {
      let state = "Z";
      try {
        state = readFileSync(`/proc/${child.pid}/stat`, "utf8").replace(/^.*\) /s, "")[0];
      } catch {}
      if (state === "Z") return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
    child.kill("SIGKILL");
  });
  return { child, stop };
}

/**
 * The local endpoint in its own process; the command line and the SDK find it in `env`.
 * @param options.synthetic specifications; @param options.latencyMs before each answer.
 * @returns the synthetic snapshots' ids, what it was asked for, and the folder it keeps.
 */
export async function startEndpoint({ synthetic = [], latencyMs = 0 } = {}) {
  const log = join(scratch, "serve.log");
  const store = join(scratch, "store");
  const args = synthetic.flatMap((spec) => ["--synthetic", spec]);
  startProcess(process.execPath, [CLI, "serve", "--store", store, ...args], log);
  const said = await until("the endpoint listens", () => {
    const lines = readFileSync(log, "utf8");
    return lines.split("Synthetic").length > synthetic.length && lines;
  });
  const url = said.match(/http:\/\/[0-9.:]+/)[0];
  env.EBSMOUNT_ENDPOINT_URL = url;
  env.AWS_ENDPOINT_URL_EBS = url;
  const admin = (method, path, body) => askAdmin(`${url}/_ebsmount/${path}`, method, body);
  const setLatency = async (ms) => {
    await admin("DELETE", "faults");
    if (ms > 0) await admin("POST", "faults", [{ action: "latency", ms }]);
  };
  await setLatency(latencyMs);
  return {
    url,
    snapshots: [...said.matchAll(/snap-[0-9a-f]+/g)].map(([id]) => id),
    setLatency,
    /** Since the last reset: operation (and `total`) → calls, bytesOut and more. */
    async stats() {
      return (await admin("GET", "stats")).operations;
    },
    /** The snapshots there are, as { snapshotId, status, … }. */
    async list() {
      return (await admin("GET", "stats")).snapshots;
    },
    resetStats: () => admin("DELETE", "stats"),
    remove: (snapshotId) => admin("DELETE", `snapshots/${snapshotId}`),
  };
}

/**
 * One request to the endpoint's admin path. On a connection of its own: this process stands still
 * while it waits for a command, and would not see that the server has closed one that it kept.
 */
async function askAdmin(url, method, body) {
  const asked = request(url, { method, agent: false });
  asked.end(body && JSON.stringify(body));
  const [answer] = await once(asked, "response");
  const value = JSON.parse(await text(answer));
  if (answer.statusCode >= 300) throw new Error(`${method} ${url}: ${value.error}`);
  return value;
}

const BARE_SDK = fileURLToPath(new URL("bare-sdk.mjs", import.meta.url));

/** @returns the seconds that the loop over the bare SDK took; its arguments as it names them. */
export async function bareSdk(...args) {
  return Number(await mustAsync(process.execPath, [BARE_SDK, ...args.map(String)]));
}

let mounts = 0;

function mountWith(args, name) {
  mounts += 1;
  const place = join(scratch, `mnt${mounts}`);
  mkdirSync(place);
  const unmount = atEnd(() => ebsmount("unmount", "--lazy", place).trim());
  ebsmount(...args, place);
  return { place, image: join(place, name), unmount };
}

/** Mounts in the background. @returns the image's path; unmount gives what a commit made. */
export const mount = (snapshot, ...args) =>
  mountWith(["mount", ...args, snapshot], `${snapshot}.img`);

/** As mount, of a blank volume. */
export const create = (...args) => mountWith(["create", ...args], "volume.img");

/** What `ebsmount status --json` says of a mount. */
export function statusOf(place) {
  const { mounts } = JSON.parse(ebsmount("status", "--json"));
  return mounts.find(({ mountPoint }) => mountPoint === place);
}

/** A raw image through qemu-storage-daemon's FUSE export: the peer for reads and writes. */
export async function qemuExport(image, { writable = false } = {}) {
  const place = join(scratch, `qemu${undo.length}.img`);
  must("touch", [place]);
  const { stop } = startProcess(
    "qemu-storage-daemon",
    [
      "--blockdev",
      `driver=file,node-name=file,filename=${image},read-only=${writable ? "off" : "on"}${writable ? ",discard=unmap" : ""}`,
      "--blockdev",
      `driver=raw,node-name=raw,file=file,read-only=${writable ? "off" : "on"}`,
      "--export",
      `type=fuse,id=export,node-name=raw,mountpoint=${place},writable=${writable ? "on" : "off"}`,
    ],
    join(scratch, "qemu.log"),
  );
  await until("qemu-storage-daemon's export", () =>
    readFileSync("/proc/self/mountinfo", "utf8").includes(` ${place} `),
  );
  return { image: place, stop };
}

/** @returns the loop device of a file. */
export function attachLoop(file, ...args) {
  const loop = must("losetup", ["-f", "--show", ...args, file]).trim();
  const detach = atEnd(() => {
    must("losetup", ["-d", loop]);
    for (let i = 0; i < 500 && existsSync(`/sys/class/block/${loop.slice(5)}/loop`); i += 1) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
  });
  return { loop, detach };
}

/** Mounts a file system. @returns how to unmount it. */
export function mountFileSystem(device, ...args) {
  const place = join(scratch, `fs${undo.length}`);
  mkdirSync(place);
  must("mount", [...args, device, place]);
  return { place, unmount: atEnd(() => must("umount", [place])) };
}

/** One fio job. @returns its JSON, for the one job there is. */
export function fio(args) {
  const out = must("fio", ["--name=bench", "--output-format=json", ...args]);
  return JSON.parse(out.slice(out.indexOf("{"))).jobs[0];
}
