/**
 * Worlds with a known true difference of -margin: a pattern whose loss is exactly what the margin just does not allow. A
 * verdict of non-inferior is then false, and so is one of inferior.
 */

const item = (baseline, candidate, cluster) => ({
  baseline,
  candidate,
  cluster,
  baselineLoss: undefined,
  candidateLoss: undefined,
  sameOutput: false,
});

const times = (count, make) => Array.from({ length: count }, (_, index) => make(index));

/** Right or wrong: `churn` of the items change in either direction alike, `margin` more of them are lost. */
function binary(items, margin, churn = 0) {
  return {
    name: `binary, ${100 * churn}% gained`,
    items,
    margin,
    draw: (random) => [
      {
        name: "t",
        scores: "binary",
        items: times(items, () => {
          const u = random();
          return u < churn + margin ? item(1, 0) : u < 2 * churn + margin ? item(0, 1) : item(1, 1);
        }),
      },
    ],
  };
}

/** As F1 and ROUGE move: 30% of the items change, by up to half the scale, and lose `margin` on average. */
function f1Like(items, margin, share = 0.3) {
  return {
    name: "F1-like",
    items,
    margin,
    draw: (random) => [
      {
        name: "t",
        scores: "graded",
        items: times(items, () => {
          const middle = 0.25 + 0.5 * random();
          if (random() >= share) return item(middle, middle);
          const change = (random() - 0.5) / 2 - margin / share;
          return item(middle, Math.min(1, Math.max(0, middle + change)));
        }),
      },
    ],
  };
}

/** 60% of the items move by 0.02 in either direction; `margin` of them fall from 1 to 0. */
function collapse(items, margin) {
  return {
    name: "tiny changes, rare collapse",
    items,
    margin,
    draw: (random) => [{ name: "t", scores: "graded", items: times(items, () => collapsing(random, margin)) }],
  };
}

function collapsing(random, share) {
  if (random() < share) return item(1, 0);
  if (random() < 0.6) return item(0.5, random() < 0.5 ? 0.52 : 0.48);
  return item(0.5, 0.5);
}

/** Articles of five questions: half of the loss strikes whole articles, half of it single questions. */
function clustered(articles, margin, unequal = false) {
  const sizes = times(articles, (index) => (unequal ? 1 + 2 * (index % 5) : 5));
  return {
    name: unequal ? "clusters of 1 to 9" : "clusters of 5",
    items: sizes.reduce((total, size) => total + size, 0),
    margin,
    draw: (random) => [
      {
        name: "t",
        scores: "binary",
        items: sizes.flatMap((size, article) => {
          const struck = random() < margin / 2;
          // Of the questions of articles that are not struck.
          const single = margin / 2 / (1 - margin / 2);
          return times(size, () => item(1, struck || random() < single ? 0 : 1, `article ${article}`));
        }),
      },
    ],
  };
}

/** Six tasks, all with the loss or a single one with all of it. */
function overall(items, margin, { concentrated = false, scores = "binary", tasks = 6, uneven = false } = {}) {
  const sizes = times(tasks, (task) => (uneven && task > 0 ? 5 * items : items));
  return {
    name: `${tasks} tasks${uneven ? ", one with a fifth of the items" : ""}, ${concentrated ? "one loses all" : "all lose alike"}${scores === "graded" ? ", graded" : ""}`,
    items: sizes.reduce((total, size) => total + size, 0),
    margin,
    draw: (random) =>
      sizes.map((size, task) => {
        const share = concentrated ? (task === 0 ? tasks * margin : 0) : margin;
        return {
          name: `t${task}`,
          scores,
          items: times(size, () =>
            scores === "graded" ? collapsing(random, share) : item(1, random() < share ? 0 : 1),
          ),
        };
      }),
  };
}

export const scenarios = [
  binary(33, 0.05),
  binary(100, 0.02),
  binary(163, 0.01),
  binary(200, 0.01),
  binary(270, 0.01),
  binary(310, 0.01),
  binary(500, 0.01),
  binary(1000, 0.01),
  binary(200, 0.01, 0.03),
  binary(1000, 0.01, 0.05),
  binary(5000, 0.01, 0.05),
  f1Like(50, 0.02),
  f1Like(100, 0.01),
  f1Like(300, 0.01),
  f1Like(1000, 0.01),
  collapse(25, 0.015),
  collapse(50, 0.015),
  collapse(100, 0.015),
  collapse(150, 0.015),
  collapse(210, 0.015),
  collapse(400, 0.015),
  collapse(1000, 0.015),
  clustered(20, 0.05),
  clustered(40, 0.05),
  clustered(100, 0.02),
  clustered(100, 0.05, true),
  overall(28, 0.01),
  overall(50, 0.01),
  overall(100, 0.01),
  overall(100, 0.01, { concentrated: true }),
  overall(100, 0.01, { scores: "graded" }),
  overall(100, 0.01, { scores: "graded", concentrated: true }),
  overall(40, 0.01, { concentrated: true, uneven: true }),
  overall(10, 0.03, { tasks: 13 }),
];

/** Worlds without a difference in which a verdict is open at first: do the items that it asks for settle it? */
export const openScenarios = [
  { ...binaryWithout(200, 0.025), margin: 0.01 },
  { ...binaryWithout(500, 0.025), margin: 0.01 },
  { ...binaryWithout(200, 0.05), margin: 0.02 },
  { ...binaryWithout(300, 0.01), margin: 0.01 },
  { ...f1Without(100), margin: 0.02 },
  { ...f1Without(300), margin: 0.01 },
  { ...tasksWithout(100, 0.02), margin: 0.01 },
];

function binaryWithout(items, churn) {
  return {
    name: `binary, ${100 * churn}% lost and gained`,
    items,
    draw: (random, count = items) => binary(count, 0, churn).draw(random),
  };
}

function f1Without(items) {
  return { name: "F1-like", items, draw: (random, count = items) => f1Like(count, 0).draw(random) };
}

function tasksWithout(items, churn) {
  return {
    name: `6 tasks, ${100 * churn}% lost and gained`,
    items: 6 * items,
    draw: (random, count = 6 * items) =>
      times(6, (task) => ({ ...binary(count / 6, 0, churn).draw(random)[0], name: `t${task}` })),
  };
}
