/** Races between cowherd and a peer: interleaved runs, medians, and the ratio a case is to reach. */

/** One way of doing a case. */
export interface Runner {
  readonly label: string;
  /** Does the work once. @returns seconds, or operations a second where `unit` says so */
  run(): Promise<number>;
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
}

const defaultRounds = 3;

/** Runs both sides in turn and compares their medians. */
export async function fight(duel: Duel): Promise<Outcome> {
  const ours: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < (duel.rounds ?? defaultRounds); round++) {
    // Who goes first changes, so that neither always finds the other's warm caches.
    const sides = [
      { runner: duel.ours, figures: ours },
      { runner: duel.peer, figures: peer },
    ];
    if (round % 2 === 1) sides.reverse();
    for (const { runner, figures } of sides) figures.push(await runner.run());
  }
  const [mine, theirs] = [median(ours), median(peer)];
  return {
    name: duel.name,
    unit: duel.unit,
    ours: mine,
    peer: theirs,
    peerLabel: duel.peer.label,
    ratio: duel.unit === 's' ? theirs / mine : mine / theirs,
    goal: duel.goal,
  };
}

/** The middle one of some figures. */
export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
