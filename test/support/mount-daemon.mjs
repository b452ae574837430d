/**
 * A mount in a process of its own, for what a test cannot do to itself: die by SIGKILL, exit without
 * unmounting, run as another user. Runs the built code. Argument: JSON with driver, mountPoint, size
 * (bytes), options, and `then`: "exit" (leave without unmounting), or nothing (serve until
 * unmounted). The device computes its bytes: the 32-bit word at offset n is n / 4, mod 2^32.
 */

import { createFileSystem } from "../../dist/filesystem/image-directory.js";
import { createFuseDriver } from "../../dist/fuse/create-driver.js";
import { parseMountOptions } from "../../dist/fuse/mount-options.js";

const wanted = JSON.parse(process.argv[2]);
const zeros = Buffer.alloc(1 << 20);

const device = {
  size: wanted.size,
  async read(offset, target) {
    for (let i = 0; i < target.length; i += 1) {
      const at = offset + i;
      target[i] = Math.floor(at / 4) >>> (8 * (at % 4));
    }
  },
  async view(offset, length) {
    if (wanted.zeros) return { parts: [zeros.subarray(0, length)], release() {} };
    const bytes = Buffer.allocUnsafe(length);
    await this.read(offset, bytes);
    return { parts: [bytes], release() {} };
  },
  async *extents(offset, length) {
    yield { offset, length, kind: "data" };
  },
  allocatedBytes: () => wanted.size,
  async close() {},
};

try {
  const options = wanted.options ?? [];
  const driver = await createFuseDriver(wanted.driver ?? "kernel");
  const mounted = await driver.mount({
    mountPoint: wanted.mountPoint,
    source: "snap-test",
    fileSystem: createFileSystem([{ name: "disk.img", device }], parseMountOptions(options)),
    options,
    readAheadBytes: wanted.readAheadBytes,
    directReads: wanted.directReads,
    log: (level, message) => process.stderr.write(`${level}: ${message}\n`),
  });
  process.stdout.write("mounted\n");
  if (wanted.then === "exit") process.exit(7);
  await mounted.ended;
  process.stdout.write("ended\n");
} catch (error) {
  process.stdout.write(`${error.errno}: ${error.message}\n`);
  process.exitCode = 1;
}
