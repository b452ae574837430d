/** A process that sends one request and has nothing more to do, with its connection still open. */
const [built, url] = process.argv.slice(2);
const { createTransport } = await import(built);
const transport = createTransport({ maxConnections: 4, trust: {}, proxies: {} });
const target = new Uint8Array(512 * 1024);
await transport.send({ method: "GET", url, headers: {}, target, maxBodyBytes: 0, stallMs: 5000 });
console.log(`${transport.description.split(" ")[0]} idle`);
