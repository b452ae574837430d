/** A device grown with zeros, at and around the end of the one below. */
import { expect, test } from "vitest";
import { GrownDevice } from "../../src/device/grown-device.js";
import { ZeroDevice } from "../../src/device/zero-device.js";
import { ReadOnlyMemoryDevice } from "../support/memory-device.js";

test("shows the disk below and zeros behind it", async () => {
  const below = new ReadOnlyMemoryDevice(Buffer.alloc(10_240, 7));
  const device = new GrownDevice(below, 3 * 1024 * 1024);
  const model = Buffer.alloc(device.size);
  below.bytes.copy(model);
  for (const [offset, length] of [
    [0, 10_240],
    [10_000, 500],
    [10_240, 100],
    [5000, 2 * 1024 * 1024],
    [device.size - 10, 10],
    [device.size, 0],
  ] as const) {
    const bytes = Buffer.alloc(length, 1);
    await device.read(offset, bytes);
    expect(bytes.equals(model.subarray(offset, offset + length))).toBe(true);
    const view = await device.view(offset, length);
    expect(Buffer.concat(view.parts).equals(bytes)).toBe(true);
    view.release();
    let at = offset as number;
    for await (const extent of device.extents(offset, length)) {
      expect(extent.offset).toBe(at);
      expect(extent.kind).toBe(at < 10_240 ? "data" : "hole");
      at += extent.length;
    }
    expect(at).toBe(offset + length);
  }
  expect(below.viewsHeld).toBe(0);
  await expect(device.read(device.size, Buffer.alloc(1))).rejects.toMatchObject({
    errno: "EINVAL",
  });
  expect(() => new GrownDevice(below, 512)).toThrow(/smaller/);
  await expect(new ZeroDevice(512).view(500, 13)).rejects.toMatchObject({ errno: "EINVAL" });
});
