const [address, key, path] = given;
const c = new client.Client(address, { key, queue: new file.FileStore(path), restMs: 0, deadlineMs: 100 });
const asked = { context: {}, actions: [{ id: "first" }, { id: "second" }], event_id: "restart" };
const answer = await c.decide("news", asked);
for (let n = 0; n < 3; n++) await c.outcome("news", client.outcomeOf(answer, n / 4, { key: `restart-${n}` }));
process.stdout.write(JSON.stringify([answer.fallback !== undefined, c.counts(), await c.waiting()]));
process.kill(process.pid, "SIGKILL");
await new Promise(() => setTimeout(() => {}, 60000));
