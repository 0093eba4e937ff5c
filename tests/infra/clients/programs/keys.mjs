const [address, tokens] = given;
const told = {};
for (const kind of ["right", "wrong", "expired", "reader", "none"]) {
  const c = new client.Client(address, { timeoutMs: 20000, ...(tokens[kind] ? { key: tokens[kind] } : {}) });
  const question = { context: {}, actions: [{ id: "a" }, { id: "b" }] };
  told[kind] = [
    await error(() => c.decide("news", question)),
    await error(() => c.decideBatch("news", [question])),
    await error(() => c.outcome("news", { event_id: `k-${kind}`, value: 1 })),
    c.counts(),
    await c.waiting(),
  ];
  await c.close();
}
console.log(JSON.stringify(told));
