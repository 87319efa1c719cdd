/** Races between cowherd and a peer: interleaved runs, medians, and the ratio a case is to reach. */

/** One way of doing a case. */
export interface Runner {
  readonly label: string;
  /** Does the work once. @returns the figure, with its processor time where that is measured */
  run(): Promise<number | Figure>;
}

/** What one run came to. */
export interface Figure {
  /** Seconds, or operations a second where the duel's `unit` says so. */
  readonly figure: number;
  readonly processorSeconds?: number | undefined;
}

/** One row of the table. */
export interface Duel {
  readonly name: string;
  /** How the runners' figures read: less seconds are better, more operations are. */
  readonly unit: 's' | 'op/s' | 'MB/s';
  readonly ours: Runner;
  readonly peer: Runner;
  /** The ratio to reach. */
  readonly goal: number;
  readonly rounds?: number;
  /** Whether the processor time is a row of its own: it has to be the peer's and Node's start at most. */
  readonly countsProcessor?: boolean;
}

/** The outcome of a duel. */
export interface Outcome {
  readonly name: string;
  readonly unit: Duel['unit'];
  readonly ours: number;
  readonly peer: number;
  readonly peerLabel: string;
  readonly ratio: number;
  readonly goal: number;
  /** Seconds of the processors, where they were measured. */
  readonly oursProcessor?: number | undefined;
  readonly peerProcessor?: number | undefined;
}

const defaultRounds = 3;

/** Runs both sides in turn and compares their medians. */
export async function fight(duel: Duel): Promise<Outcome> {
  const ours: Figure[] = [];
  const peer: Figure[] = [];
  for (let round = 0; round < (duel.rounds ?? defaultRounds); round++) {
    // Who goes first changes, so that neither always finds the other's warm caches.
    const sides = [
      { runner: duel.ours, figures: ours },
      { runner: duel.peer, figures: peer },
    ];
    if (round % 2 === 1) sides.reverse();
    for (const { runner, figures } of sides) {
      const result = await runner.run();
      figures.push(typeof result === 'number' ? { figure: result } : result);
    }
  }
  const [mine, theirs] = [ours, peer].map((side) => median(side.map(({ figure }) => figure)));
  return {
    name: duel.name,
    unit: duel.unit,
    ours: mine,
    peer: theirs,
    peerLabel: duel.peer.label,
    ratio: duel.unit === 's' ? theirs / mine : mine / theirs,
    goal: duel.goal,
    oursProcessor: processorOf(ours),
    peerProcessor: processorOf(peer),
  };
}

function processorOf(figures: readonly Figure[]): number | undefined {
  const seconds = figures.map(({ processorSeconds }) => processorSeconds);
  return seconds.every((each) => each !== undefined) ? median(seconds) : undefined;
}

/** The processor time of an outcome, against the peer's with the start of Node. */
export function processorOutcome(outcome: Outcome, nodeSeconds: number): Outcome | undefined {
  const { oursProcessor, peerProcessor } = outcome;
  if (oursProcessor === undefined || peerProcessor === undefined) return undefined;
  const peer = peerProcessor + nodeSeconds;
  return {
    name: `processor time: ${outcome.name}`,
    unit: 's',
    ours: oursProcessor,
    peer,
    peerLabel: `${outcome.peerLabel}, and an empty program of Node`,
    ratio: peer / oursProcessor,
    goal: 1,
  };
}

/** The middle one of some figures. */
export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
