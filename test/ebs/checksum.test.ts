import { createHash, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { LinearChecksum, sha256 } from "../../src/ebs/checksum.js";

test("the LINEAR aggregate is the SHA-256 over the raw digests in ascending order", () => {
  const blocks = [randomBytes(512), randomBytes(512), randomBytes(512)];
  const linear = new LinearChecksum();
  blocks.forEach((block, i) => {
    linear.add(i * 10, sha256(block));
  });
  const expected = createHash("sha256")
    .update(Buffer.concat(blocks.map((block) => sha256(block))))
    .digest("base64");
  expect(linear.count).toBe(3);
  expect(linear.base64()).toBe(expected);
});

test("digests out of order or of a wrong length are refused", () => {
  const linear = new LinearChecksum();
  linear.add(5, sha256(Buffer.alloc(1)));
  expect(() => linear.add(5, sha256(Buffer.alloc(1)))).toThrow(RangeError);
  expect(() => linear.add(6, Buffer.alloc(31))).toThrow(RangeError);
});
