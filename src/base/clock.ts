/** Seconds since some moment. */
import process from "node:process";

export type Clock = () => number;

export const clockNames = ["wall", "cpu"] as const;
export type ClockName = (typeof clockNames)[number];

/**
 * `wall` is time as it passes. `cpu` is what all threads of this process have computed: on a machine that others use as
 * well, work on one thread takes the same by it whoever waits.
 */
export const clocks: Readonly<Record<ClockName, Clock>> = {
  wall: () => performance.now() / 1000,
  cpu: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  },
};
