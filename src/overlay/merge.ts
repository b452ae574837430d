/**
 * Base and dirty data as one: which bytes of a range the base must give, how the dirty bytes are laid
 * over them, and the extents of both together.
 */
import { Failure } from "../common/failure.js";
import { BLOCK_SIZE, SECTOR_SIZE } from "../common/sizes.js";
import type { BlockDevice, Extent } from "../device/block-device.js";
import type { DirtyMap } from "./dirty-map.js";
import type { Journal } from "./journal.js";
import type { OverlayStore } from "./overlay-store.js";
import { CLEAN, DATA, HOLE, PARTIAL, readsAsZeros } from "./sector-states.js";

/**
 * The bytes [from, to) that must come from the base. Runs in one block are joined, dirty sectors
 * between them included: the base fetches whole blocks anyway.
 */
export function baseSpans(map: DirtyMap, offset: number, end: number): [number, number][] {
  const spans: [number, number][] = [];
  const last = Math.ceil(end / SECTOR_SIZE);
  let sector = Math.floor(offset / SECTOR_SIZE);
  while (sector < last) {
    const state = map.stateAt(sector);
    const stop = map.runEnd(sector, last);
    if (state === CLEAN || state === PARTIAL) {
      const from = Math.max(offset, sector * SECTOR_SIZE);
      const to = Math.min(end, stop * SECTOR_SIZE);
      const before = spans.at(-1);
      if (
        before !== undefined &&
        Math.floor((before[1] - 1) / BLOCK_SIZE) === Math.floor(from / BLOCK_SIZE)
      ) {
        before[1] = to;
      } else {
        spans.push([from, to]);
      }
    }
    sector = stop;
  }
  return spans;
}

/**
 * Lays the dirty bytes over `target`, the bytes at `offset`.
 * @throws Failure EIO where the overlay files cannot be trusted or read
 */
export function applyDirty(
  map: DirtyMap,
  store: OverlayStore,
  journal: Journal,
  offset: number,
  target: Uint8Array,
): void {
  const end = offset + target.length;
  const last = Math.ceil(end / SECTOR_SIZE);
  let sector = Math.floor(offset / SECTOR_SIZE);
  while (sector < last) {
    const state = map.stateAt(sector);
    const stop = map.runEnd(sector, last);
    if (state !== CLEAN) {
      const from = Math.max(offset, sector * SECTOR_SIZE);
      const to = Math.min(end, stop * SECTOR_SIZE);
      if (readsAsZeros(state)) {
        target.fill(0, from - offset, to - offset);
      } else {
        journal.check();
        if (state === DATA) store.readAt(from, target.subarray(from - offset, to - offset));
        else applyPartial(map, store, from, to, target.subarray(from - offset, to - offset));
      }
    }
    sector = stop;
  }
}

/** `target` is the bytes [from, to) of PARTIAL sectors. */
function applyPartial(
  map: DirtyMap,
  store: OverlayStore,
  from: number,
  to: number,
  target: Uint8Array,
): void {
  for (let at = from; at < to; ) {
    const sector = Math.floor(at / SECTOR_SIZE);
    const start = sector * SECTOR_SIZE;
    const stop = Math.min(to, start + SECTOR_SIZE);
    const mask = map.maskOf(sector);
    if (mask === undefined) throw new Failure("EIO", "The overlay's map is not sound.");
    const written = (byte: number) => (mask[byte >> 5]! & (1 << (byte & 31))) !== 0;
    // By runs of written bytes: the file may end right after the last of them.
    while (at < stop) {
      while (at < stop && !written(at - start)) at++;
      const runStart = at;
      while (at < stop && written(at - start)) at++;
      if (at > runStart) store.readAt(runStart, target.subarray(runStart - from, at - from));
    }
  }
}

/**
 * The extents of [offset, end); what the base says of a range counts where the range is clean. Written
 * zeros are data, as they are in the snapshot to come.
 */
export async function* mergedExtents(
  map: DirtyMap,
  base: BlockDevice,
  offset: number,
  end: number,
): AsyncGenerator<Extent> {
  for (let at = offset; at < end; ) {
    const sector = Math.floor(at / SECTOR_SIZE);
    const runEnd = map.runEnd(sector, Math.ceil(end / SECTOR_SIZE)) * SECTOR_SIZE;
    const stop = Math.min(end, runEnd);
    if (map.stateAt(sector) !== CLEAN) {
      yield { offset: at, length: stop - at, kind: map.stateAt(sector) === HOLE ? "hole" : "data" };
      at = stop;
      continue;
    }
    for await (const extent of base.extents(at, stop - at)) {
      // Asked again: listing the base takes time, and what was clean may have been written.
      yield* refined(map, extent);
    }
    at = stop;
  }
}

function* refined(map: DirtyMap, extent: Extent): Generator<Extent> {
  const end = extent.offset + extent.length;
  const last = Math.ceil(end / SECTOR_SIZE);
  for (let at = extent.offset; at < end; ) {
    const sector = Math.floor(at / SECTOR_SIZE);
    const state = map.stateAt(sector);
    const stop = Math.min(end, map.runEnd(sector, last) * SECTOR_SIZE);
    const kind = state === CLEAN ? extent.kind : state === HOLE ? "hole" : "data";
    yield { offset: at, length: stop - at, kind };
    at = stop;
  }
}
