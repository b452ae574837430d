import { describe, expect, it } from "vitest";
import { findMount, isMounted, parseMountTable } from "../../src/fuse/mount-table.js";

describe("mount table", () => {
  it("reads names with spaces, tabs, backslashes and other languages", () => {
    const line =
      "42 27 0:39 / /tmp/a\\040b\\011c\\134d/\u00fc ro,nosuid shared:1 master:2 - fuse.ebsmount snap-1\\0402 ro,user_id=0";
    expect(parseMountTable(`${line}\n\nnonsense\n`)).toEqual([
      {
        id: 42,
        device: "0:39",
        mountPoint: "/tmp/a b\tc\\d/\u00fc",
        type: "fuse.ebsmount",
        source: "snap-1 2",
        readOnly: true,
      },
    ]);
  });

  it("finds what is mounted now", async () => {
    const proc = await findMount("/proc");
    expect(proc?.type).toBe("proc");
    expect(await isMounted(proc!)).toBe(true);
    expect(await isMounted({ ...proc!, id: 999_999_999 })).toBe(false);
    expect(await findMount("/nowhere")).toBeUndefined();
  });
});
