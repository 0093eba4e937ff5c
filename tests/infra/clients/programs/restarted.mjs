const [address, key, path] = given;
const c = new client.Client(address, { key, queue: new file.FileStore(path), timeoutMs: 20000 });
const asked = { context: {}, actions: [{ id: "first" }, { id: "second" }], event_id: "restart" };
const before = await c.waiting();
const again = await c.decide("news", asked);
const other = await error(() => c.decide("news", { ...asked, context: { hour: 1 } }));
const left = await c.flush(20000);
console.log(JSON.stringify({ before, again, other, left, counts: c.counts() }));
await c.close();
