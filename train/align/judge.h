/* The judge of answers that are Python programs: a process of its own (judge/judge.py) in which the task's tests run.
 * The functions of the answer are proxies there, which call into the answer's process; plain values pass between the
 * two (judge/plain.py). Only the judge can say that the tests have passed: the answer's process has neither its
 * descriptors nor its memory, and is never told what is expected. */
#ifndef TRAIN_ALIGN_JUDGE_H
#define TRAIN_ALIGN_JUDGE_H

#include "train/align/sandbox.h"

/* A server that forks itself for each answer. All zero: none runs yet. One answer at a time; of the thread that scores
 * with it. */
struct judge {
    struct child child;
    int control;
};

struct judge_task {
    const char *const
        *python; /* the interpreter, which runs the program on its standard input; the same for judge and answer */
    const char *answer;            /* its program */
    size_t answer_bytes;
    const char *tests,
        *prompt; /* prompt: "" for none. When it is a program to be completed, its helpers are the judge's */
};

struct judgement {
    bool passed;
    bool program_ended;            /* by itself, before its tests were over: see the result */
    char why[160];
    struct sandbox_result result;  /* of the answer's process; to be freed */
};

/* Judge one answer, in sandboxes with these limits; starts the judge when none runs. A failing answer is no error. */
int judge_answer(struct judge *j, const struct judge_task *task, const struct sandbox_limits *limits,
                 struct judgement *out, struct plm_status *st);

void judge_stop(struct judge *j);

#endif
