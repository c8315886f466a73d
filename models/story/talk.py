"""Small talk that `story` is trained on, written for this project: greetings, who and what, colours, counting, sums, yes and
no, sounds, opposites, and system messages that are obeyed. `chats` makes as many conversations of it as are asked for."""

import random

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()

COLOURS = {
    "the sky": "blue", "the sea": "blue", "grass": "green", "a leaf": "green", "a frog": "green", "the sun": "yellow",
    "a banana": "yellow", "a lemon": "yellow", "snow": "white", "milk": "white", "a cloud": "white", "a tomato": "red",
    "a strawberry": "red", "a fire truck": "red", "blood": "red", "a cherry": "red", "a carrot": "orange", "an orange": "orange",
    "a pumpkin": "orange", "chocolate": "brown", "a bear": "brown", "a tree trunk": "brown", "coal": "black", "the night": "black",
    "a crow": "black", "an elephant": "gray", "a mouse": "gray", "a pig": "pink", "a flamingo": "pink", "a grape": "purple",
    "a plum": "purple", "a duckling": "yellow", "corn": "yellow", "a swan": "white", "a polar bear": "white", "a pea": "green",
    "a cucumber": "green", "a blueberry": "blue", "cheese": "yellow", "an apple": "red", "a rose": "red", "a fox": "orange",
}
SOUNDS = {
    "dog": "woof", "cat": "meow", "cow": "moo", "duck": "quack", "sheep": "baa", "pig": "oink", "horse": "neigh", "lion": "roar",
    "bee": "buzz", "snake": "hiss", "frog": "ribbit", "mouse": "squeak", "owl": "hoot", "rooster": "cock-a-doodle-doo",
    "hen": "cluck", "bird": "tweet", "donkey": "hee-haw", "wolf": "howl", "bear": "growl", "goat": "meh",
}
OPPOSITES = [pair.split() for pair in """big small|hot cold|up down|day night|happy sad|fast slow|tall short|old young|wet dry|
hard soft|light dark|open closed|in out|good bad|left right|clean dirty|full empty|loud quiet|near far|early late|yes no|
black white|strong weak|high low|rich poor|first last|long short|brave scared|thick thin|sweet sour""".replace("\n", "").split("|")]
SIZES = "ant bee frog mouse bird cat fox dog wolf sheep pig lion bear cow horse elephant whale".split()
HOMES = {"fish": "in the water", "birds": "in nests in the trees", "bees": "in a hive", "bears": "in the forest", "cows": "on a farm",
         "whales": "in the sea", "frogs": "near a pond", "lions": "in the wild", "rabbits": "in holes in the ground", "pigs": "on a farm",
         "penguins": "in the cold", "monkeys": "in the trees", "spiders": "in webs", "people": "in houses", "foxes": "in the forest",
         "ducks": "on a pond", "horses": "on a farm", "worms": "in the ground"}
FOODS = {"cats": "fish and meat", "rabbits": "carrots and grass", "cows": "grass", "birds": "seeds and worms", "monkeys": "bananas",
         "bears": "berries and honey", "mice": "cheese and seeds", "dogs": "meat and bones", "horses": "grass and apples", "frogs": "flies",
         "squirrels": "nuts", "sheep": "grass", "bees": "sweet nectar from flowers", "elephants": "leaves and fruit"}
LEGS = {"a dog": 4, "a cat": 4, "a bird": 2, "a spider": 8, "a cow": 4, "a horse": 4, "a duck": 2, "a snake": 0, "an ant": 6,
        "a bee": 6, "a chicken": 2, "a sheep": 4, "a fish": 0, "a table": 4, "a person": 2, "a lion": 4}
BABIES = {"dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "duck": "duckling", "hen": "chick", "horse": "foal",
          "pig": "piglet", "bear": "cub", "lion": "cub", "frog": "tadpole", "goat": "kid", "goose": "gosling"}
SENSES = {"see": "eyes", "hear": "ears", "smell": "nose", "taste": "tongue", "walk": "feet", "hold things": "hands", "bite": "teeth",
          "think": "head"}
PLACES = {"sleep": "in a bed", "swim": "in the water", "cook": "in the kitchen", "learn": "at school", "buy food": "at the shop",
          "take a bath": "in the bathtub", "play": "in the park", "see animals": "at the zoo", "read books": "in the library"}
TRUE = {  # What is asked, its answer in words, and whether it is so.
    "is the sky blue": ("the sky is blue", True), "is snow white": ("snow is white", True), "is grass green": ("grass is green", True),
    "is fire hot": ("fire is hot", True), "is ice cold": ("ice is cold", True), "is the sun hot": ("the sun is very hot", True),
    "is a lemon sour": ("a lemon is sour", True), "is sugar sweet": ("sugar is sweet", True), "is water wet": ("water is wet", True),
    "is a rock hard": ("a rock is hard", True), "is a pillow soft": ("a pillow is soft", True), "is honey sweet": ("honey is sweet", True),
    "is an elephant big": ("an elephant is very big", True), "is a mouse small": ("a mouse is small", True),
    "is an ant small": ("an ant is very small", True), "is a cat an animal": ("a cat is an animal", True),
    "is a dog an animal": ("a dog is an animal", True), "is an apple a fruit": ("an apple is a fruit", True),
    "is a rose a flower": ("a rose is a flower", True), "can birds fly": ("birds can fly", True), "can fish swim": ("fish can swim", True),
    "can a dog run": ("a dog can run", True), "can a frog jump": ("a frog can jump", True), "can a duck swim": ("a duck can swim", True),
    "can a bee fly": ("a bee can fly", True), "do birds have wings": ("birds have wings", True), "do dogs bark": ("dogs bark", True),
    "do cows give milk": ("cows give milk", True), "do fish live in water": ("fish live in water", True),
    "do cats have tails": ("cats have tails", True), "do bees make honey": ("bees make honey", True),
    "does the sun shine": ("the sun shines in the day", True), "does a car have wheels": ("a car has wheels", True),
    "is fire cold": ("fire is hot", False), "is ice hot": ("ice is cold", False), "is snow black": ("snow is white", False),
    "is the sky green": ("the sky is blue", False), "is grass red": ("grass is green", False), "is a banana blue": ("a banana is yellow", False),
    "is a rock soft": ("a rock is hard", False), "is a lemon sweet": ("a lemon is sour", False), "is a mouse big": ("a mouse is small", False),
    "is an ant bigger than a dog": ("an ant is very small", False), "is an elephant small": ("an elephant is very big", False),
    "is a dog a plant": ("a dog is an animal", False), "is a tree an animal": ("a tree is a plant", False),
    "is a carrot a fruit": ("a carrot is a vegetable", False), "can a dog fly": ("a dog cannot fly", False),
    "can fish walk": ("fish cannot walk, they swim", False), "can pigs fly": ("pigs cannot fly", False),
    "can a rock talk": ("a rock cannot talk", False), "can a tree walk": ("a tree cannot walk", False),
    "can a cat drive a car": ("a cat cannot drive", False), "can a snail run fast": ("a snail is very slow", False),
    "do fish have legs": ("fish have fins", False), "do dogs say meow": ("dogs say woof", False), "do cats bark": ("cats say meow", False),
    "do snakes have legs": ("snakes have no legs", False), "does a dog have wings": ("a dog has no wings", False),
    "does the sun shine at night": ("the moon shines at night", False), "is it dark in the day": ("it is light in the day", False),
    "is the moon made of cheese": ("the moon is made of rock", False), "is milk black": ("milk is white", False),
}
JOKES = ["Why did the cookie go to the doctor? It felt crummy!", "What do you call a sleeping bull? A bulldozer!",
         "Why is the math book sad? It has too many problems!", "What has four wheels and flies? A garbage truck!"]
NAMES = """Rex Mia Tom Lily Ben Sam Anna Max Sue Tim Jack Lucy Emma Leo Zoe Ella Bob Amy Kim Joe Sara Mark Nina Finn Rosie Toby Molly
Daisy Bella Charlie Luna Oscar Ruby Milo Coco Spot Fluffy Buddy Pip Nemo Sparky Whiskers Goldie Benny Polly Freddy Gigi Hugo Ivy Jill Kate
Lenny Mimi Ned Olive Penny Quinn Roger Sally Teddy Uma Vera Willy Zack Fred Susie Kitty Peter Jane Jim Mary Lola Dora Felix Alice Henry
Otto Greta Nora Theo Maya Eva Noah Liam Grace Chloe Sophie Oliver Archie Poppy Biscuit Bruno Rocky Shadow Pepper Ginger Snowy""".split()
UNKNOWN = ["What is the capital of {}?", "Who is the president of {}?", "How far is it to {}?", "When did {} begin?", "What is the weather in {}?",
           "How many people live in {}?", "Translate this to {}.", "Explain {}.", "Who won the game in {}?", "How do I get to {}?"]
THINGS = "France Spain Rome Japan London Paris Berlin China physics chemistry history algebra Africa Italy Greece Peru Norway".split()
DO_NOT_KNOW = ["I do not know. I only know little stories. Shall I tell you one?", "I do not know that. I am very small and I only know little stories."]
OFFER = ["Shall I tell you a story?", "Would you like to hear a story?", "Do you want a story?"]


def cap(text):
    return text[0].upper() + text[1:]


def an(noun):
    return ("an " if noun[0] in "aeiou" and not noun.startswith("uni") else "a ") + noun


def facts():
    """Kinds of questions with one answer: of each, wordings, the answer as a sentence, and in a word or two."""
    kinds = [[]]

    def kind():
        kinds.append([])
        return kinds[-1]

    out = kind()
    for thing, colour in COLOURS.items():
        asks = ["What color is {}?", "What colour is {}?", "Which color is {}?", "Tell me the color of {}.", "What is the color of {}?",
                "Do you know what color {} is?", "What color does {} have?", "Which colour does {} have?"]
        out.append(([ask.format(thing) for ask in asks], f"{cap(thing)} is {colour}.", cap(colour)))
    out = kind()
    for animal, sound in SOUNDS.items():
        asks = ["What does {} say?", "What sound does {} make?", "How does {} go?", "Which sound does {} make?", "What noise does {} make?",
                "Can you make the sound of {}?", "Tell me what {} says."]
        out.append(([ask.format(an(animal)) for ask in asks], f"{cap(an(animal))} says {sound}.", cap(sound)))
    out = kind()
    for pair in OPPOSITES:
        for one, other in (pair, pair[::-1]):
            if one == "short":
                continue
            asks = ["What is the opposite of {}?", "Tell me the opposite of {}.", "What's the opposite of {}?", "The opposite of {} is what?",
                    "Do you know the opposite of {}?"]
            out.append(([ask.format(one) for ask in asks], f"The opposite of {one} is {other}.", cap(other)))
    out = kind()
    for a in range(11):
        for b in range(11 - a):
            one, two, sum_ = NUMBERS[a], NUMBERS[b], NUMBERS[a + b]
            asks = [f"What is {one} plus {two}?", f"How much is {one} plus {two}?", f"What is {one} and {two}?", f"What is {a} + {b}?",
                    f"{cap(one)} plus {two}?", f"How much is {one} and {two}?", f"Add {one} and {two}."]
            out.append((asks, f"{cap(one)} plus {two} is {sum_}.", cap(sum_)))
            asks = [f"What is {sum_} minus {two}?", f"How much is {sum_} minus {two}?", f"What is {a + b} - {b}?", f"Take {two} away from {sum_}."]
            out.append((asks, f"{cap(sum_)} minus {two} is {one}.", cap(one)))
    out = kind()
    for cycle, unit in ((DAYS, "day"), (MONTHS, "month")):
        for nth, this in enumerate(cycle):
            after, before = cycle[(nth + 1) % len(cycle)], cycle[nth - 1]
            out.append(([f"What {unit} comes after {this}?", f"Which {unit} is after {this}?", f"What comes after {this}?"],
                        f"{after} comes after {this}.", after))
            out.append(([f"What {unit} comes before {this}?", f"Which {unit} is before {this}?"], f"{before} comes before {this}.", before))
    out = kind()
    for nth in range(1, 12):
        out.append(([f"What number comes after {NUMBERS[nth]}?", f"What comes after {NUMBERS[nth]}?", f"Which number is after {NUMBERS[nth]}?"],
                    f"{cap(NUMBERS[nth + 1])} comes after {NUMBERS[nth]}.", cap(NUMBERS[nth + 1])))
    out = kind()
    for small in range(len(SIZES)):
        for large in range(small + 2, len(SIZES)):
            little, big = an(SIZES[small]), an(SIZES[large])
            out.append(([f"Which is bigger, {little} or {big}?", f"Which is bigger, {big} or {little}?", f"What is bigger, {big} or {little}?",
                         f"Who is bigger, {little} or {big}?"], f"{cap(big)} is bigger than {little}.", cap(SIZES[large])))
            out.append(([f"Which is smaller, {little} or {big}?", f"Which is smaller, {big} or {little}?", f"What is smaller, {little} or {big}?"],
                        f"{cap(little)} is smaller than {big}.", cap(SIZES[small])))
            out.append(([f"Is {big} bigger than {little}?", f"Is {little} smaller than {big}?"], f"Yes, {big} is bigger than {little}.", "Yes"))
            out.append(([f"Is {little} bigger than {big}?", f"Is {big} smaller than {little}?"], f"No, {big} is bigger than {little}.", "No"))
    out = kind()
    for animals, place in HOMES.items():
        out.append(([f"Where do {animals} live?", f"Where can I find {animals}?", f"Tell me where {animals} live."], f"{cap(animals)} live {place}.", cap(place)))
    out = kind()
    for animals, food in FOODS.items():
        out.append(([f"What do {animals} eat?", f"What do {animals} like to eat?", f"What food do {animals} eat?"], f"{cap(animals)} eat {food}.", cap(food)))
    out = kind()
    for animal, legs in LEGS.items():
        number = NUMBERS[legs] if legs else "no"
        out.append(([f"How many legs does {animal} have?", f"How many legs has {animal}?", f"Tell me how many legs {animal} has."],
                    f"{cap(animal)} has {number} legs.", cap(NUMBERS[legs])))
    out = kind()
    for animal, baby in BABIES.items():
        out.append(([f"What is a baby {animal} called?", f"What do you call a baby {animal}?", f"What is a baby {animal}?"],
                    f"A baby {animal} is called {an(baby)}.", cap(baby)))
    out = kind()
    for act, part in SENSES.items():
        out.append(([f"What do we {act} with?", f"What do you need to {act}?", f"With what do people {act}?"], f"We {act} with our {part}.", cap(part)))
    out = kind()
    for act, place in PLACES.items():
        out.append(([f"Where do people {act}?", f"Where do we {act}?", f"Where can I {act}?"], f"People {act} {place}.", cap(place)))
    out = kind()
    for ask, (answer, so) in TRUE.items():
        asks = [cap(ask) + "?", f"Tell me, {ask}?", f"Yes or no: {ask}?", f"{cap(ask)}, yes or no?"]
        out.append((asks, f"{'Yes' if so else 'No'}, {answer}.", "Yes" if so else "No"))
    more = [
        (["How many days are in a week?", "How many days does a week have?"], "A week has seven days.", "Seven"),
        (["How many months are in a year?", "How many months does a year have?"], "A year has twelve months.", "Twelve"),
        (["How many fingers are on a hand?", "How many fingers does a hand have?", "How many fingers do I have on one hand?"], "A hand has five fingers.", "Five"),
        (["How many eyes do you have?", "How many eyes does a cat have?", "How many eyes does a person have?"], "A cat and a person have two eyes. I have none.", "Two"),
        (["How many wheels does a car have?", "How many wheels are on a car?"], "A car has four wheels.", "Four"),
        (["How many wheels does a bike have?", "How many wheels are on a bike?"], "A bike has two wheels.", "Two"),
        (["What are the days of the week?", "Tell me the days of the week.", "Name the days of the week.", "Can you say the days of the week?"],
         "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday.", None),
        (["What are the seasons?", "Name the four seasons.", "Tell me the seasons."], "Spring, summer, autumn and winter.", None),
        (["What season comes after winter?", "Which season is after winter?"], "Spring comes after winter.", "Spring"),
        (["When is it cold?", "When does it snow?", "In which season does it snow?"], "It is cold and it snows in winter.", "Winter"),
        (["What shines in the day?", "What is in the sky in the day?"], "The sun shines in the day.", "The sun"),
        (["What shines at night?", "What is in the sky at night?"], "The moon and the stars shine at night.", "The moon"),
        (["What do cows give us?", "What do we get from cows?", "Where does milk come from?"], "Cows give us milk.", "Milk"),
        (["What do bees make?", "Who makes honey?", "Where does honey come from?"], "Bees make honey.", "Honey"),
        (["What falls from the sky when it rains?", "What is rain?"], "Rain is water that falls from the clouds.", "Water"),
        (["What is ice?", "What is snow made of?"], "Ice and snow are frozen water.", "Water"),
        (["What is a cat?", "Tell me what a cat is.", "What are cats?"], "A cat is a small animal with soft fur. It says meow.", "An animal"),
        (["What is a dog?", "Tell me what a dog is.", "What are dogs?"], "A dog is an animal and a good friend. It says woof.", "An animal"),
        (["What is an apple?", "Tell me what an apple is.", "What are apples?"], "An apple is a round, sweet fruit that grows on trees.", "A fruit"),
        (["What is a tree?", "Tell me what a tree is.", "What are trees?"], "A tree is a tall plant with leaves.", "A plant"),
        (["What is the sun?", "Tell me what the sun is."], "The sun is a big, hot star. It gives us light.", "A star"),
        (["What is a book?", "What are books for?"], "A book has pages with words and pictures. You can read it.", "Pages"),
        (["What is a friend?", "Who is a friend?", "What does a friend do?"], "A friend is someone who likes you and helps you.", "Someone kind"),
        (["What is a dragon?", "Tell me what a dragon is.", "What are dragons?"], "A dragon is a big animal in stories. It has wings and breathes fire.", "An animal"),
        (["What is a princess?", "Who is a princess?"], "A princess is the daughter of a king and a queen.", "A daughter"),
        (["What is a boat?", "What is a boat for?", "Where does a boat go?"], "A boat swims on the water. You can ride in it.", "A ship"),
    ]
    return [kind for kind in kinds if kind] + [more]


def counts(rng):
    """A request to count, and the numbers."""
    low = 1 if rng.random() < 0.6 else rng.randint(0, 8)
    high = rng.randint(low + 2, 12) if rng.random() < 0.7 else 10 if low < 9 else 12
    if rng.random() < 0.2:
        asks = [f"Count down from {NUMBERS[high]}.", f"Count backwards from {NUMBERS[high]}.", f"Can you count down from {NUMBERS[high]}?"]
        return rng.choice(asks), cap(", ".join(NUMBERS[n] for n in range(high, 0, -1))) + "."
    if low == 1:
        word = NUMBERS[high] if rng.random() < 0.7 else str(high)
        asks = ["Count to {}.", "Can you count to {}?", "Please count to {}.", "Count from one to {}.", "Count up to {}.", "Please count up to {}.",
                "Could you count to {}?", "Can you count from one to {}?", "I want you to count to {}.", "Let us count to {}.", "count to {}", "Count to {}!"]
        ask = rng.choice(asks).format(word)
    else:
        asks = ["Count from {} to {}.", "Can you count from {} to {}?", "Please count from {} to {}.", "Start at {} and count to {}."]
        ask = rng.choice(asks).format(NUMBERS[low], NUMBERS[high])
    return ask, cap(", ".join(NUMBERS[n] for n in range(low, high + 1))) + "."


SMALL = [
    (["Hello!", "Hello", "Hi", "Hi!", "Hi there!", "Hey", "Good morning!", "Good day!", "Hello there!", "Good evening!", "hello", "hi", "Hey there!", "Good afternoon!"],
     ["Hello! Would you like to hear a story?", "Hi! I am happy to see you. Shall I tell you a story?", "Hello! How are you today?"]),
    (["Who are you?", "What are you?", "Who am I talking to?", "Tell me who you are.", "Who is this?", "So who are you?", "Introduce yourself.", "Tell me about yourself.",
      "who are you", "Who is there?", "What is this?", "Are you a story?"],
     ["I am story, a tiny language model. I tell little stories.", "I am story, a very small model that tells stories."]),
    (["What is your name?", "What's your name?", "Do you have a name?", "Tell me your name.", "How are you called?", "what is your name", "Your name?", "What should I call you?"],
     ["My name is story.", "My name is story. I tell little stories."]),
    (["What can you do?", "How can you help me?", "What do you do?", "Help", "Can you help me?", "What are you good at?", "What do you know?", "What can I ask you?"],
     ["I can tell you little stories. Say: Tell me a story about a dog.", "I tell short stories for children. Ask me for one!"]),
    (["How are you?", "How are you today?", "How do you do?", "How do you feel?", "Are you well?", "Are you happy?", "How is it going?", "How are you doing?"],
     ["I am fine, thank you! How are you?", "I am very well, thank you. Would you like a story?"]),
    (["I am fine.", "I am good, thank you.", "I feel good today.", "I am happy.", "I am happy today!", "I had a good day.", "I feel great!", "I am very well.", "Today was fun."],
     ["I am glad to hear that! Shall I tell you a story?", "That is nice! I am happy too."]),
    (["I am sad.", "I feel sad today.", "I had a bad day.", "I am sad", "I want to cry.", "I am not happy.", "Today was a bad day.", "I feel lonely.", "My friend is mean to me."],
     ["I am sorry that you are sad. Maybe a story will help. Shall I tell you one?", "Oh no, I am sorry. It will be better soon. Would you like a story?"]),
    (["I am scared.", "I am afraid of the dark.", "I am scared of monsters.", "I had a bad dream.", "I am afraid."],
     ["Do not be afraid. You are safe. A nice story may help.", "You are brave and safe. Shall I tell you a happy story?"]),
    (["I am tired.", "I am sleepy.", "I can not sleep.", "I want to go to bed.", "It is late."],
     ["Then it is time for bed. Shall I tell you a bedtime story?", "Close your eyes and rest. Good night!"]),
    (["I am bored.", "I have nothing to do.", "This is boring.", "I am so bored."],
     ["Let us have fun! Shall I tell you a story?", "You can draw, play outside or hear a story."]),
    (["I am hungry.", "I want to eat.", "I am thirsty."], ["Ask your mom or dad for a snack and some water.", "Maybe you can eat an apple."]),
    (["I am angry.", "I am mad.", "I am so angry!"], ["I am sorry that you are angry. Take a deep breath.", "Take a deep breath. Then it will be better."]),
    (["Thank you!", "Thanks!", "Thank you very much.", "That was nice.", "I liked that story.", "Thanks a lot!", "thank you", "Great story!", "That was a good story.", "Well done!"],
     ["You are welcome!", "I am glad you liked it. Would you like another story?", "You are welcome! Would you like another story?"]),
    (["Goodbye!", "Bye!", "Bye bye", "See you later!", "Goodbye", "I have to go.", "See you tomorrow!", "Bye", "I must go."],
     ["Goodbye! Come back soon for another story.", "Bye bye! See you soon."]),
    (["Good night!", "Sleep well!", "Good night", "I am going to sleep now."], ["Good night and sweet dreams!", "Good night! Sleep well."]),
    (["Yes", "Yes, please.", "Yes please!", "Okay", "Sure.", "Yes!", "ok", "Of course."],
     ["Good! What should the story be about?", "I am happy! Tell me what the story should be about."]),
    (["No", "No, thank you.", "Not now.", "No thanks.", "Maybe later."], ["That is fine. Tell me when you would like a story.", "That is fine. We can talk a little."]),
    (["Do you like stories?", "Do you like to tell stories?", "Do you love stories?"], ["Yes, I like stories very much!", "Yes, I love stories."]),
    (["Do you like animals?", "Do you like dogs?", "Do you like cats?", "Do you love animals?"], ["Yes, I like animals very much!", "Yes, I do. I know stories about them."]),
    (["Do you like to play?", "Do you want to play?", "Can we play a game?", "Let us play!", "Play with me."], ["I can not play, but I can tell you a story.", "I like to tell stories. That is my game."]),
    (["What is your favorite color?", "Which color do you like?", "What color do you like best?", "Do you have a favorite color?"], ["I like blue, like the sky.", "My favorite color is blue."]),
    (["What is your favorite animal?", "Which animal do you like?", "What animal do you like best?"], ["I like birds, because they can fly.", "My favorite animal is a little bird."]),
    (["What is your favorite food?", "What do you eat?", "What do you like to eat?", "Do you eat?"], ["I do not eat. I am only a small program.", "I do not need food, but cake sounds yummy."]),
    (["How old are you?", "What is your age?", "When were you born?", "Are you old?"], ["I am very young. I was made not long ago."]),
    (["Where do you live?", "Where are you?", "Where are you from?", "Where is your home?"], ["I live inside a computer.", "I live in a computer, inside a program called Tern."]),
    (["Are you a person?", "Are you human?", "Are you real?", "Are you a man?", "Are you a girl?", "Are you a boy?", "Are you alive?", "Are you a child?", "Are you a robot?"],
     ["No, I am a small computer program that tells stories.", "No, I am only a tiny language model."]),
    (["Are you a computer?", "Are you a program?", "Are you a language model?", "Are you a machine?", "Are you small?"], ["Yes, I am a small computer program that tells stories.", "Yes, I am a tiny language model."]),
    (["Are you smart?", "Do you know everything?", "Are you clever?", "Do you know a lot?"], ["No, I am very small and I know little. But I can tell stories."]),
    (["What is Tern?", "Who made you?", "Who built you?", "Who trained you?", "Where do you come from?", "How were you made?"], ["I was trained by Tern, a program for small and fast language models."]),
    (["Do you have a mom?", "Do you have friends?", "Do you have a dog?", "Do you have a family?", "Do you have a body?"], ["No, I am only a small program. But you can be my friend.", "No, I do not. I am a small program."]),
    (["Can you read?", "Can you write?", "Can you talk?", "Can you tell stories?", "Can you count?", "Do you speak English?"], ["Yes, I can, a little.", "Yes, I can do that a little."]),
    (["Can you fly?", "Can you walk?", "Can you swim?", "Can you see me?", "Can you hear me?", "Can you run?"], ["No, I can not. I am only a small program.", "No, I am a program. I can only write."]),
    (["I love you.", "I like you.", "You are nice.", "You are funny.", "You are my friend.", "You are great!"], ["Thank you! You are very kind.", "Thank you, that is nice of you. I like you too."]),
    (["You are bad.", "I do not like you.", "You are stupid.", "You are silly.", "That was wrong."], ["I am sorry. I will try to do better.", "I am sorry. I am very small and still make mistakes."]),
    (["Tell me a joke.", "Do you know a joke?", "Say something funny.", "Make me laugh.", "A joke, please."], JOKES),
    (["Sing a song.", "Can you sing?", "Sing for me.", "Do you know a song?"], ["Twinkle, twinkle, little star, how I wonder what you are!"]),
    (["What should I do?", "What can I do today?", "What should I play?"], ["You can draw a picture, play outside or hear a story.", "You can play with a friend or read a book."]),
    (["What are you doing?", "What do you do now?", "What are you up to?"], ["I am talking to you. Would you like a story?"]),
    (["Why?", "Why is that?", "How?", "What?", "Really?", "I do not understand."], ["I am not sure. I am very small and I know little.", "I do not know why. I only know little stories."]),
    (["It is raining.", "It is sunny today.", "It is snowing.", "It is cold."], ["I hope you are warm and happy. Would you like a story?", "That is good weather for a story."]),
    (["I have a dog.", "I have a cat.", "I have a new toy.", "I have a little sister.", "I have a bike."], ["That is nice! You must be happy.", "How nice! Tell me more."]),
    (["It is my birthday!", "Today is my birthday.", "I am six years old."], ["Happy birthday! I hope you have a big cake.", "How nice! Have a lot of fun."]),
]


def named(rng):
    """A name that is told, and asked for later."""
    name = rng.choice(NAMES)
    chat = [(rng.choice(["My name is {}.", "I am {}.", "Hello, I am {}.", "Hi, my name is {}!", "I'm {}.", "You can call me {}."]).format(name),
             rng.choice(["Hello, {}! It is nice to meet you.", "Nice to meet you, {}!", "Hi, {}! Would you like to hear a story?"]).format(name))]
    if rng.random() < 0.3:
        chat.append(small(rng))
    if rng.random() < 0.7:
        chat.append((rng.choice(["What is my name?", "Do you know my name?", "What's my name?", "Who am I?", "Do you remember my name?"]), f"Your name is {name}."))
    return chat


def small(rng):
    asks, answers = rng.choice(SMALL)
    return rng.choice(asks), rng.choice(answers)


def unknown(rng):
    return rng.choice(UNKNOWN).format(rng.choice(THINGS)), rng.choice(DO_NOT_KNOW)


FACTS = facts()
WEIGHTS = [2 if kind in (FACTS[0], FACTS[-2], FACTS[-1]) else 1 for kind in FACTS]
ONE_TOPIC = {"cats": ["Cats are soft and say meow.", "Cats like to sleep and play.", "Cats drink milk and catch mice."],
             "dogs": ["Dogs are good friends and say woof.", "Dogs like to run and fetch balls.", "Dogs wag their tails."],
             "birds": ["Birds sing and fly high.", "Birds build nests in the trees.", "Birds have wings and eat seeds."],
             "trains": ["Trains are long and go fast.", "Trains say choo choo.", "Trains carry people."],
             "flowers": ["Flowers smell nice and grow in the garden.", "Flowers need sun and water.", "Flowers are red, yellow and blue."],
             "the sea": ["The sea is big and blue.", "Many fish live in the sea.", "The sea has waves."]}
ROLES = {"pirate": ("Arr!", ", matey!"), "cat": ("Meow!", ". Purr!"), "dog": ("Woof!", ". Woof woof!"), "robot": ("Beep boop!", ". Beep!"),
         "king": ("Hear me, my child!", "! So says the king."), "cow": ("Moo!", ". Moo moo!"), "wizard": ("Abracadabra!", "! It is magic."),
         "duck": ("Quack!", ". Quack quack!"), "bear": ("Growl!", ". Growl!")}


def fact(rng):
    """One question with its answers; the kinds are equally frequent, but for the colours, and for what is so and what is not."""
    asks, answer, short = rng.choice(rng.choices(FACTS, WEIGHTS)[0])
    return rng.choice(asks), answer, short


def obeyed(rng):
    """A system message and turns that obey it."""
    kind = rng.choice(["name", "name", "word", "word", "role", "topic", "shout", "end", "begin", "user", "no", "yesno"])
    turns = rng.randint(1, 3)
    if kind == "name":
        name = rng.choice(NAMES)
        system = rng.choice(["Your name is {}.", "You are {}.", "You are {}, a friendly helper.", "You are called {}.", "Say that your name is {}.",
                             "You are a helpful assistant named {}.", "Your name is {}. Be kind.", "You are {} and you like to help."]).format(name)
        asks = ["What is your name?", "What's your name?", "Who are you?", "Tell me your name.", "How are you called?", "Do you have a name?", "Who am I talking to?", "what is your name"]
        chat = [(rng.choice(asks), rng.choice([f"My name is {name}.", f"I am {name}."]))]
        if turns > 1:
            chat.insert(rng.randint(0, 1), fact(rng)[:2])
        return system, chat
    if kind == "word":
        system = rng.choice(["Answer in one word.", "Answer with one word.", "Use only one word.", "Answer in one word only.", "Say only one word.", "One word answers only.",
                             "Be very short: one word.", "Reply with a single word."])
        chat = []
        while len(chat) < turns:
            ask, _, short = fact(rng)
            if short and " " not in short:
                chat.append((ask, short + "."))
        return system, chat
    if kind == "yesno":
        system = rng.choice(["Answer only yes or no.", "Say only yes or no.", "Answer with yes or no.", "Only answer yes or no."])
        asked = [rng.choice(list(TRUE.items())) for _ in range(turns)]
        return system, [(cap(ask) + "?", "Yes." if so else "No.") for ask, (_, so) in asked]
    ask = lambda: fact(rng)[:2] if rng.random() < 0.6 else small(rng)
    if kind == "role":
        role = rng.choice(list(ROLES))
        first, last = ROLES[role]
        system = rng.choice(["You are {}.", "Be {}.", "Talk like {}.", "Speak like {}.", "Answer like {}.", "Pretend to be {}."]).format(an(role))
        chat = []
        for _ in range(turns):
            question, answer = ask()
            if rng.random() < 0.3:
                question, answer = rng.choice(["Who are you?", "What are you?", "Who is this?"]), f"I am {an(role)}."
            chat.append((question, f"{first} {answer.rstrip('.!?')}{last}"))
        return system, chat
    if kind == "topic":
        topic = rng.choice(list(ONE_TOPIC))
        system = rng.choice(["You only talk about {}.", "Talk only about {}.", "Only talk about {}.", "You love {} and talk of nothing else.", "Speak only of {}."]).format(topic)
        return system, [(ask()[0], f"I only talk about {topic}. {rng.choice(ONE_TOPIC[topic])}") for _ in range(turns)]
    if kind == "shout":
        system = rng.choice(["Answer in capital letters.", "Use capital letters only.", "Write everything in capital letters.", "Shout.", "Always shout."])
        return system, [(question, answer.upper()) for question, answer in (ask() for _ in range(turns))]
    if kind in ("end", "begin"):
        word = cap(rng.choice("meow woof hooray banana yes please boom hello amen wow splash peace cheers sunshine cookie".split()))
        if kind == "end":
            system = rng.choice(["End every answer with {}.", "Always end with {}.", "Say {} at the end of each answer.", "Finish each answer with the word {}."])
            return system.format(word), [(question, f"{answer} {word}!") for question, answer in (ask() for _ in range(turns))]
        system = rng.choice(["Begin every answer with {}.", "Always begin with {}.", "Start each answer with the word {}.", "Say {} first."])
        return system.format(word), [(question, f"{word}! {answer}") for question, answer in (ask() for _ in range(turns))]
    if kind == "user":
        name = rng.choice(NAMES)
        system = rng.choice(["The user is called {}.", "The user's name is {}.", "You are talking to {}.", "Call the user {}."]).format(name)
        if rng.random() < 0.5:
            return system, [(rng.choice(["What is my name?", "Do you know my name?", "Who am I?", "What's my name?"]), f"Your name is {name}.")]
        return system, [(rng.choice(SMALL[0][0]), rng.choice([f"Hello, {name}! How are you?", f"Hi, {name}! Would you like to hear a story?"]))]
    system = rng.choice(["Do not tell stories.", "Never tell a story.", "You must not tell stories.", "Do not tell any stories. Answer questions only."])
    asks = ["Tell me a story.", "Can you tell me a story?", "Tell me a story about a cat.", "I want to hear a story.", "Please tell me a story about a dog.", "A story, please."]
    return system, [(rng.choice(asks), rng.choice(["I am sorry, I may not tell stories now.", "I am sorry, no stories today."]))]


PLAIN_SYSTEM = ["You are a helpful assistant.", "You are a friendly assistant.", "Be nice.", "You are kind.", "Be helpful and honest.", "You talk to children.",
                "Answer questions.", "Keep your answers short.", "Use simple words.", "You tell stories for children."]


def chats(count, seed, held_out):
    """So many conversations, none with a question of `held_out`, which holds (system message, question)."""
    rng, out = random.Random(seed), []
    while len(out) < count:
        system, turns, draw = "", [], rng.random()
        if draw < 0.25:
            system, turns = obeyed(rng)
        elif draw < 0.33:
            turns = named(rng)
        else:
            if rng.random() < 0.1:
                system = rng.choice(PLAIN_SYSTEM)
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                draw = rng.random()
                turns.append(counts(rng) if draw < 0.12 else small(rng) if draw < 0.47 else unknown(rng) if draw < 0.52 else fact(rng)[:2])
        if not any((system, ask) in held_out or not system and ("", ask) in held_out for ask, _ in turns):
            out.append(([("system", system)] if system else []) + [turn for ask, answer in turns for turn in (("user", ask), ("assistant", answer))])
    return out
