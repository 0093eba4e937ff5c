const [address, key] = given;
const losses = [];
const open = (more = {}) => new client.Client(address + "/", { key, timeoutMs: 20000, onLoss: (l) => losses.push(l), ...more });
const question = (event_id, hour = 14) =>
  ({ context: { hour, user: { country: "nl" } }, actions: [{ id: "tea", features: { price: 2.5 } }, { id: "coffee" }, { id: "water" }], event_id });
const c = open();
const told = {};
told.answer = await c.decide("news", { ...question(), event_id: null });
told.same = [await c.decide("news", question("same")), await open().decide("news", question("same"))];
told.reused = await error(() => c.decide("news", question("same", 15)));
told.batch = (await c.decideBatch("news", [question("b-0"), question("same", 3), { context: {}, actions: [] }])).map((one) =>
  one instanceof client.RefusedError ? [one.name, one.field] : one.action_id);
const slots = [{ id: "left" }, { id: "right", excluded_actions: ["water"], baseline_action: "coffee" }];
told.slots = await c.decide("news", { ...question("slots"), slots });
told.reported = await c.outcome("news", client.outcomeOf(told.slots, 2, { slot: "right" }), client.outcomeOf(told.slots, 1, { name: "dwell" }));
told.noSlot = await error(async () => client.outcomeOf(told.slots, 1, { slot: "middle" }));
await c.decide("news", { ...question("late"), deferred: true });
await c.activate("news", "late");
await c.activate("news", "late");
told.kept = { slots: await c.explain("slots", "news"), late: await c.explain("late") };
told.loops = await c.loops();
told.described = (await c.describe("news")).loop;
told.errors = {
  loop: await error(() => c.decide("no such/loop", question())),
  event: await error(() => c.explain("never asked")),
  twice: await error(() => c.decide("news", { context: {}, actions: [{ id: "a" }, { id: "a" }] })),
  nan: await error(() => c.decideBatch("news", [question(), { context: { user: { ages: [30, NaN] } }, actions: [{ id: "a" }] }])),
  infinite: await error(() => c.outcome("news", { event_id: "e", value: -Infinity })),
  ts: await error(() => c.outcome("news", { event_id: "e", value: 1, ts: "yesterday" })),
  address: await error(async () => new client.Client("news.example.com")),
  setting: await error(async () => open({ deadlineMs: 0 })),
};
told.many = (await Promise.all([...Array(40).keys()].map((n) => c.decide("news", question(`p-${n}`))))).map((a) => a.event_id);
told.counts = c.counts();
await c.close();
await c.close();
told.closed = await error(() => c.decide("news", question()));
told.losses = losses;
console.log(JSON.stringify(told));
