"""The table of training steps."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, NS, PATH, RATIO, TEXT, TIMES, column, schema

TRAINING = schema(
    column("job", TEXT, "", "name of the training in the scenario"),
    column("gradients", TEXT, "", "real, or modelled: bytes of the right number after a stated computing time"),
    column("collective", TEXT, "", "how the sum was formed: ring, tree or hierarchical"),
    column("step", COUNT, "", "number of the synchronisation, from 0; it occurs again if it had to be repeated"),
    column("outcome", TEXT, "", "completed, handed-over, lost, interrupted, stopped or unfinished"),
    column("local_steps", COUNT, "", "steps that each satellite took by itself since the synchronisation before"),
    column("ring", COUNT, "", "number of the ring; raised whenever its lines are made anew"),
    column("participants", PATH, "", "satellites that took part, in the order of the ring"),
    column("lost", PATH, "", "those among them that could not be reached afterwards"),
    column("t_start_ns", NS, "ns", "when the first participant began to compute; null if none came to the end"),
    column("t_end_ns", NS, "ns", "when the last participant had the sum, or when the step was given up"),
    column("compute_ns", TIMES, "ns", "of each participant: its computing; null if it did not come to the end"),
    column("communication_ns", TIMES, "ns", "of each participant: the wait from its computing until it had the sum"),
    column("sent_byte", TIMES, "byte", "of each participant: sent for the sum, without headers and repetitions"),
    column("received_byte", TIMES, "byte", "of each participant: received for the sum"),
    column("theory_byte", NS, "byte", "what each has to send, in the mean; in a ring 2 (n - 1) / n x size"),
    column("collective_ns", NS, "ns", "from the last participant's end of computing until all had the sum"),
    column("predicted_ns", NS, "ns", "the least for that: propagation and serialisation on the planned paths"),
    column("handed_over_byte", NS, "byte", "weights that participants took over from another before the step"),
    column("tokens", NS, "tokens", "trained on by all participants; 0 unless completed"),
    column("loss", RATIO, "", "training loss, mean of the participants; null if the gradients are modelled"),
)
