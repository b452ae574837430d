/**
 * What a bench makes on the machine: a scratch folder, processes, mounts, loop devices, peers. The bench
 * takes all of it away again when it ends, however it ends; so everything here that undoes something is
 * synchronous. If the bench itself is killed, the kernel ends its processes; mounts and the folder stay.
 */
import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
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
  NO_PROXY: "127.0.0.1",
  no_proxy: "127.0.0.1",
};

const undo = [];
process.on("exit", () => {
  while (undo.length > 0) {
    try {
      undo.at(-1)();
    } catch (error) {
      console.error(`bench clean-up: ${error.message}`);
    }
  }
  rmSync(scratch, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => process.exit(128 + constants.signals[signal]));
}

/**
 * Registers what takes something away again.
 * @returns a function that does so now, once; its `cancel` says that there is nothing left to do.
 */
export function atEnd(action) {
  const cancel = () => {
    const place = undo.indexOf(once);
    if (place >= 0) undo.splice(place, 1);
    return place >= 0;
  };
  const once = () => (cancel() ? action() : undefined);
  once.cancel = cancel;
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

/** Starts a process to which the kernel sends a signal when this one dies, even by SIGKILL. */
function spawnTied(signal, command, args, options) {
  return spawn("setpriv", ["--pdeathsig", signal, "--", command, ...args], { env, ...options });
}

/**
 * As must, but this process can go on meanwhile.
 * @param onStart gets the process id.
 */
export function mustAsync(command, args, { limitMs = 600_000, onStart, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawnTied("KILL", command, args, {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: limitMs,
      ...options,
    });
    const kill = atEnd(() => stopProcess(child.pid, "SIGKILL"));
    const said = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"]) {
      child[name].on("data", (chunk) => {
        said[name] += chunk;
      });
    }
    child.on("error", (error) => {
      kill.cancel();
      reject(error);
    });
    child.on("close", (status) => {
      kill.cancel();
      if (status === 0) resolve(said.stdout);
      else reject(new Error(`${command} ${args.join(" ")}: status ${status}\n${said.stderr}`));
    });
    if (child.pid !== undefined) onStart?.(child.pid);
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

/** Waits without the event loop, at most `limitMs`. @returns whether the process is gone or a zombie. */
function isGoneWithin(pid, limitMs) {
  for (let waited = 0; waited <= limitMs; waited += 10) {
    let state = "Z";
    try {
      state = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "")[0];
    } catch {}
    if (state === "Z") return true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
  }
  return false;
}

/** Stops a process that this bench has started, by SIGKILL if it still runs after five seconds. */
export function stopProcess(pid, signal = "SIGTERM") {
  for (const name of [signal, "SIGKILL"]) {
    try {
      process.kill(pid, name);
    } catch {}
    if (isGoneWithin(pid, 5000)) return;
  }
}

/** Starts a process that runs until `stop`, or until the bench ends. */
export function startProcess(command, args, log) {
  const output = openSync(log, "w");
  const child = spawnTied("TERM", command, args, { stdio: ["ignore", output, output] });
  closeSync(output);
  // It must not keep the bench from ending: the end is what stops it.
  child.unref();
  return { pid: child.pid, stop: atEnd(() => stopProcess(child.pid)) };
}

const BARE_SDK = fileURLToPath(new URL("bare-sdk.mjs", import.meta.url));

/**
 * Runs the loop over the bare SDK; its arguments as bare-sdk.mjs names them.
 * @param url the endpoint's, unless it is the one in `env`.
 * @returns { seconds, processorSeconds } of the blocks after the warm-up.
 */
export async function bareSdk({ what, subject, first, count, concurrency, warmUp = 0, url }) {
  const args = [what, subject, first, count, concurrency, warmUp].map(String);
  const trust = env.BENCH_CA && { NODE_EXTRA_CA_CERTS: env.BENCH_CA };
  const options = url && { env: { ...env, ...trust, AWS_ENDPOINT_URL_EBS: url } };
  return JSON.parse(await mustAsync(process.execPath, [BARE_SDK, ...args], options));
}

let places = 0;

/** @returns a path in the scratch folder that nothing has had before. */
function newPlace(kind) {
  places += 1;
  return join(scratch, `${kind}${places}`);
}

function mountWith(args, name) {
  const place = newPlace("mnt");
  mkdirSync(place);
  const unmountArgs = ["unmount", "--lazy", place];
  const unmount = atEnd(() => ebsmount(...unmountArgs).trim());
  ebsmount(...args, place);
  const unmountAsync = async () => {
    const said = await mustAsync(process.execPath, [CLI, ...unmountArgs]);
    unmount.cancel();
    return said.trim();
  };
  return { place, image: join(place, name), unmount, unmountAsync };
}

/** Mounts in the background. @returns the image's path; unmount gives the id of a commit's snapshot. */
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
  const place = newPlace("qemu");
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
  const place = newPlace("fs");
  mkdirSync(place);
  must("mount", [...args, device, place]);
  return { place, unmount: atEnd(() => must("umount", [place])) };
}

/** One fio job. @returns its JSON, for the one job there is. */
export function fio(args) {
  const out = must("fio", ["--name=bench", "--output-format=json", ...args]);
  return JSON.parse(out.slice(out.indexOf("{"))).jobs[0];
}
