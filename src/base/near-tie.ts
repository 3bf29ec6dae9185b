/**
 * Losses closer than this, in nats, are equal for every choice. Kernels and thread counts flip near ties of the top-k,
 * which moves a loss by up to about 1e-5: a smaller difference is not the model's, and a choice by it would differ
 * from machine to machine.
 */
export const TIE_NATS = 1e-5;
