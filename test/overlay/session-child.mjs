// A process that uses a session, to be killed: `hold` keeps its lock, `write` writes rounds for ever.
import { ZeroDevice } from "../../dist/device/zero-device.js";
import { OverlayDevice } from "../../dist/overlay/overlay-device.js";
import { openSession } from "../../dist/overlay/session.js";

const [what, stateDir, id, first] = process.argv.slice(2);
const PAGES = 512;
const session = await openSession(stateDir, id);
if (what === "hold") {
  console.log("held");
  setInterval(() => {}, 1000);
} else {
  const device = await OverlayDevice.open(session, new ZeroDevice(2 ** 30));
  for (let round = Number(first); ; round++) {
    // A page in two writes, each of them no whole sectors.
    const page = (round % PAGES) * 4096;
    const bytes = Buffer.alloc(4096, (round % 255) + 1);
    await device.write(page, bytes.subarray(0, 1000));
    await device.write(page + 1000, bytes.subarray(1000));
    if (round >= 3) await device.zero(((round - 3) % PAGES) * 4096, 4096);
    await device.flush();
    process.stdout.write(`${round}\n`);
  }
}
