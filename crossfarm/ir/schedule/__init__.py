"""Schedules: transformations of tensor programs that keep their meaning, each checked, recorded and replayable.

``schedule.Schedule`` is what people use. Each of its methods is recorded as an instruction of a trace and calls a pure
function ``(PrimFunc, …) -> (PrimFunc, result)``, which refuses what it cannot prove. Each file stands on those above
it alone:

==================  ===================================================================================================
statements          ``tree`` finds and replaces statements, ``fresh`` copies them with definitions of their own,
                    ``nests`` makes loops and finds places for them; ``references`` is what a schedule hands out
numbers             ``iter_map`` writes indices as digits of loop variables (what is one to one), ``index_arith`` folds
                    and proves, ``spans`` bounds an index while loops run
index maps          ``python_text`` and ``index_map``: a layout, its inverse, and both as text
regions             ``images``: what is surely reached or stored; ``covering``: what may be touched, and loops over just
                    that; ``touches``: what each iteration touches; ``copied_regions``: what a block touches, declared
                    and done; ``inverse``: which instance stores an element
blocks              ``dependencies``: producers, consumers, complete and reduction blocks; ``independence``: may
                    iterations change their order; ``reducers``: which reductions commute; ``stages``: whose values do
                    not depend on when they are computed; ``recognize``: is this content that description
primitives          ``queries``, ``loops``, ``marks``; ``cache``, ``reindex``, ``layout``, ``padding``; ``inline``,
                    ``compute_at``, ``reduction``; ``sample``
intrinsics          ``whole`` makes functions of a body, ``dot_products`` and ``transposes`` those that are built in;
                    ``intrinsics`` is the table, ``blockize`` and ``tensorize`` put them into programs
recording           ``trace_values``, ``trace``: instructions as JSON and Python; ``base``: applying and recording
the schedule        ``methods_*``: a mix-in of typed methods a family, and ``schedule``, which joins them
==================  ===================================================================================================
"""
